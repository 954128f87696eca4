"""Asks the Pulumi engine about a stage.

Through the ``pulumi`` command line, so that the runtime needs neither Pulumi's SDK nor to know which
backend, credentials and plugins the engine uses: it is the same ``pulumi`` that a person calls in the
same shell. Nothing here changes a stage.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kilo.contract import CONTRACT_VERSION, StackOutputs
from kilo.errors import BadInput, CheckFailed, Unreachable

_TIMEOUT_SECONDS = 60
_HISTORY = 500
"""Updates that are read; older ones only make what is live look younger."""


def read_outputs(stage: str, project: Path) -> StackOutputs:
    """Read what ``stage`` exports, checked against the contract.

    Args:
        stage: the stack's name, such as ``dev``.
        project: the folder of ``Pulumi.yaml``.

    Raises:
        BadInput: there is no such stage, or its outputs are of another contract.
        CheckFailed: the stage was never deployed.
        Unreachable: there is no ``pulumi``, or it can't reach its state.
    """
    values = _pulumi_json(["stack", "output", "--json", "--stack", stage], stage, project)
    if not values:
        msg = f"stage {stage}: has no outputs; deploy it with `pulumi up -s {stage}`"
        raise CheckFailed(msg)
    try:
        return StackOutputs.model_validate(values, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = values.get("contract_version", "none") if isinstance(values, dict) else "none"
        msg = (
            f"stage {stage}: output {place}: {first['msg']} (contract version {CONTRACT_VERSION}, "
            f"deployed: {found}); deploy it again, or use the kilo that deployed it"
        )
        raise BadInput(msg) from error


def read_state(stage: str, project: Path) -> dict[str, Any]:
    """The stack's state as ``pulumi stack export`` has it, secrets encrypted.

    Raises:
        BadInput: there is no such stage.
        Unreachable: there is no ``pulumi``, or it can't reach its state.
    """
    return _pulumi_json(["stack", "export", "--stack", stage], stage, project)


def read_history(stage: str, project: Path) -> list[dict[str, Any]]:
    """Every update of the stack that the engine recorded, the newest first, secrets left encrypted.

    Raises:
        BadInput: there is no such stage.
        Unreachable: there is no ``pulumi``, or it can't reach its state.
    """
    pages = ["--page-size", str(_HISTORY), "--page", "1"]
    return _pulumi_json(["stack", "history", "--json", *pages, "--stack", stage], stage, project)


def _pulumi_json(arguments: list[str], stage: str, project: Path) -> Any:
    engine = shutil.which("pulumi")
    if engine is None:
        msg = 'pulumi: not on PATH; in the sandbox run eval "$(kilo env)", else install Pulumi 3.259 or later'
        raise Unreachable(msg)
    try:
        done = subprocess.run(
            [engine, *arguments, "--non-interactive", "--color", "never"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"pulumi: no answer within {_TIMEOUT_SECONDS} s; is its state backend reachable?"
        raise Unreachable(msg) from error
    if done.returncode == 0:
        return json.loads(done.stdout)
    lines = done.stderr.strip().splitlines()
    reason = next(
        (line for line in lines if line.startswith("error:")), lines[-1] if lines else "no reason given"
    )
    if "no stack named" in reason:
        msg = f"stage {stage}: there is no such stack; `pulumi stack ls` shows those that there are"
        raise BadInput(msg)
    msg = f"pulumi: {reason.removeprefix('error: ')}"
    raise Unreachable(msg)
