"""The Secrets by which pods show the bus who they are: what they are called, and how a pod has one.

NATS' are made by the program (:mod:`components.processes.bus_credentials`), a Kafka's are there already.
Either has the same keys, and pods take either in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.pods.pod import SecretFiles, SecretKey
from kilo.bus.access import (
    CA_VARIABLE,
    NAME_VARIABLE,
    PASSWORD_VARIABLE,
    SECRET_FILES,
    USER_VARIABLE,
    Shown,
)
from kilo.bus.roles import BusRole, bus_secrets

DIRECTORY = "/etc/kilo-bus"
AUTHORITIES_FILE = SECRET_FILES[CA_VARIABLE]
GENERATION = "kilo.dev/bus-credentials"
"""On pods: they are replaced when their user is."""


@dataclass(frozen=True)
class BusUsers:
    """The users of a bus that lets nobody else in."""

    generation: str
    """Which they are; whatever changes it replaces the pods."""
    secrets: Mapping[BusRole, str] = field(default_factory=bus_secrets)
    shown: Shown = "password"
    named: bool = True
    """Whether the Secrets have the name of the server's certificate too. A Kafka's brokers each have their
    own, by which they are reached."""

    def files(self, role: BusRole) -> SecretFiles:
        """The Secret of ``role`` as files."""
        return SecretFiles(self.secrets[role], DIRECTORY)

    def variables(self, role: BusRole) -> Mapping[str, SecretKey]:
        """What a process of ``role`` has in its environment, besides :meth:`places`."""
        user = (USER_VARIABLE, PASSWORD_VARIABLE) if self.shown == "password" else ()
        name = (NAME_VARIABLE,) if self.named else ()
        return {each: SecretKey(self.secrets[role], each) for each in (*user, *name)}

    def places(self) -> Mapping[str, str]:
        """Where each file lies, by its variable."""
        variables = SECRET_FILES if self.shown == "certificate" else (CA_VARIABLE,)
        return {variable: f"{DIRECTORY}/{SECRET_FILES[variable]}" for variable in variables}
