"""How programs on this machine use the dev stage's bus: as the reconciler, which reads and publishes events.

The variables are those that a pod of that role has (:mod:`kilo.bus.access`), taken from the same Secret, with
what is a file there in one under ``.kilo``.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from kilo.bus.access import NAME_VARIABLE, PASSWORD_VARIABLE, SECRET_FILES, USER_VARIABLE
from kilo.bus.roles import BusRole
from kilo.contract import StackOutputs
from sandbox.backing import write_atomically
from sandbox.cluster.client import connect

ROLE: BusRole = "reconciler"
_VARIABLES = (USER_VARIABLE, PASSWORD_VARIABLE, NAME_VARIABLE)


def keep_access(project: Path, cluster: str, outputs: StackOutputs) -> None:
    """Fetch what :data:`ROLE` shows the bus, for :func:`access_variables`.

    Args:
        project: the checkout.
        cluster: the URL of its cluster.
        outputs: the stage's; without users on its bus there is nothing to be fetched.

    Raises:
        httpx.HTTPError: the cluster has no Secret of that role.
    """
    variables: dict[str, str] = {}
    if ROLE in outputs.bus.role_secrets:
        variables = fetch_access(project, cluster, outputs, ROLE)
    write_atomically(_file(project), variables)


def access_variables(project: Path) -> dict[str, str]:
    """The variables that :func:`keep_access` has left, if any."""
    try:
        return json.loads(_file(project).read_bytes())
    except FileNotFoundError:
        return {}


def fetch_access(project: Path, cluster: str, outputs: StackOutputs, role: BusRole) -> dict[str, str]:
    """The variables of any role, from its Secret.

    Raises:
        httpx.HTTPError: the cluster has no Secret of that role.
        KeyError: the bus has no such role.
    """
    path = f"/api/v1/namespaces/{outputs.namespace}/secrets/{outputs.bus.role_secrets[role]}"
    with connect(cluster) as client:
        data = client.get(path).raise_for_status().json()["data"]
    # A Kafka's users have no name of the server, and a certificate or a password.
    found = {name: base64.b64decode(data[name]).decode() for name in _VARIABLES if name in data}
    for variable, key in SECRET_FILES.items():
        if key in data:
            file = project.resolve() / ".kilo" / f"bus-{role}-{key}"
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(data[key]))
            found[variable] = str(file)
    return found


def _file(project: Path) -> Path:
    return project / ".kilo" / "bus.json"
