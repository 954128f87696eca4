"""A stage's addresses as a program on this machine reaches them.

In the dev stage of ``kilo up`` the names of the cluster's Services resolve in its pods alone; each has a
loopback address, which lies in ``.kilo/addresses.json``. On a real cluster a name's address here is whatever
forwards to it, so there is nothing to be said of that.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from kilo.environment import OUTPUTS_VARIABLE, POD_VARIABLE
from kilo.errors import BadInput, Unreachable
from kilo.project import locate_project

_SERVICE = re.compile(r"(?<![a-z0-9.-])([a-z0-9-]+)\.([a-z0-9-]+)\.svc\.cluster\.local\b")


def runs_here(project: Path) -> bool:
    """Whether the engine that is asked for stages is the one of ``kilo up`` in this checkout."""
    return os.environ.get("PULUMI_BACKEND_URL") == f"file://{project.resolve() / '.kilo' / 'state'}"


def replace_service_names(text: str, project: Path) -> str:
    """``text`` with loopback addresses in place of the names of Services.

    Raises:
        BadInput: the checkout has no stage that runs on this machine.
        Unreachable: a Service has no address, since it was not deployed.
    """
    file = project.resolve() / ".kilo" / "addresses.json"
    try:
        addresses: dict[str, str] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"{file}: no addresses of a stage on this machine; bring the dev stage up: kilo up"
        raise BadInput(msg) from error

    def address(match: re.Match[str]) -> str:
        name, namespace = match.groups()
        if found := addresses.get(f"service/{namespace}/{name}"):
            return found
        msg = f"{match[0]}: has no address on this machine; deploy it: kilo up"
        raise Unreachable(msg)

    return _SERVICE.sub(address, text)


def adopt_environment(checkout: Path | None = None) -> None:
    """Take the variables of the stage that is up in this checkout, unless the shell names a stage itself.

    ``kilo up`` leaves them in ``.kilo/environment.json`` beside ``Pulumi.yaml``, and ``kilo down`` takes the
    file away, so that commands find the stage as long as it is there.
    """
    # A pod of the sandbox has its directory in the checkout, and of the stage only what it was given.
    if OUTPUTS_VARIABLE in os.environ or POD_VARIABLE in os.environ:
        return
    project = checkout or locate_project()
    if project is not None:
        home = project / ".kilo"
        with suppress(OSError, ValueError):
            os.environ.update(json.loads((home / "environment.json").read_bytes()))
            # The stage's own engine and database programs, whatever the machine has.
            os.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
