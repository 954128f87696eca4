"""The Secrets by which pods show the bus who they are: what they are called, and how a pod has one."""

from __future__ import annotations

from collections.abc import Mapping

from components.pods.pod import SecretFiles, SecretKey
from kilo.bus.access import CA_VARIABLE, NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.roles import BusRole

DIRECTORY = "/etc/kilo-bus"
AUTHORITIES_FILE = "ca.pem"
GENERATION = "kilo.dev/bus-credentials"
"""On pods: they are replaced when their user is."""


def bus_secret(role: BusRole) -> str:
    """The name of the Secret with ``role``'s user, password, authorities and the server's name."""
    return f"bus-{role}"


def bus_files(role: BusRole) -> SecretFiles:
    """The Secret of ``role`` as files."""
    return SecretFiles(bus_secret(role), DIRECTORY)


def bus_variables(role: BusRole) -> Mapping[str, SecretKey]:
    """What a process of ``role`` has in its environment, besides :data:`CA_PLACE`."""
    return {
        name: SecretKey(bus_secret(role), name) for name in (USER_VARIABLE, PASSWORD_VARIABLE, NAME_VARIABLE)
    }


CA_PLACE = {CA_VARIABLE: f"{DIRECTORY}/{AUTHORITIES_FILE}"}
