"""The stage that a promotion comes from: its gate, and the set of digests that it hands on.

It is asked by the commands that people ask it with, in a process of its own: they have one environment, that
of the stage that they look at, and a promotion touches two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilo.automation import read_outputs
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import (
    DATABASE_VARIABLE,
    FROM_DATABASE_VARIABLE,
    FROM_OUTPUTS_VARIABLE,
    OUTPUTS_VARIABLE,
)
from kilo.errors import BadInput, CheckFailed, ExitCode, Unreachable


@dataclass(frozen=True)
class Source:
    """What is live in the stage that a promotion comes from.

    Attributes:
        release: SHA-256 of what was deployed.
        program: the program's commit.
        running: digests by image; None where it is not known.
        gate: what was checked, as `kilo promote check --json` says it.
    """

    stage: str
    release: str
    program: str
    running: Mapping[str, str | None]
    outputs: StackOutputs
    gate: Mapping[str, Any]


def ask(stage: str, to: str, project: Path) -> Source:
    """Ask a stage whether its release may go on, and what that is.

    Raises:
        BadInput: the database of that stage is not named.
        CheckFailed: its gate says no, or the release changed while it was asked.
    """
    gate = _kilo(project, "check", "--from", stage, "--to", to)
    if gate["verdict"] == "failed":
        failed = [f"{each['check']} ({each['reason'] or each['shown']})" for each in gate["checks"]]
        passed = [each["verdict"] == "passed" for each in gate["checks"]]
        reasons = "; ".join(each for each, good in zip(failed, passed, strict=True) if not good)
        msg = f"{stage} is not promoted to {to}: {reasons}"
        raise CheckFailed(msg)
    live = _kilo(project, "status", "--from", stage)
    if live["release"] != gate["release"] or live["moved"]:
        moved = "; ".join(live["moved"]) or "another deployment came between"
        msg = f"{stage}: the release changed while its gate was asked: {moved}"
        raise CheckFailed(msg)
    running: dict[str, str | None] = {**dict.fromkeys(live["unpinned"]), **live["digests"]}
    file = os.environ.get(FROM_OUTPUTS_VARIABLE)
    outputs = load_outputs(Path(file)) if file else read_outputs(stage, project)
    return Source(stage, live["release"], live["program"], running, outputs, gate)


def _kilo(project: Path, *arguments: str) -> Any:
    url = os.environ.get(FROM_DATABASE_VARIABLE, "")
    if not url:
        msg = (
            f"{FROM_DATABASE_VARIABLE}: not set; it names the database of the stage that the release comes "
            f"from, as {DATABASE_VARIABLE} names that of the stage that it goes to"
        )
        raise BadInput(msg)
    environment = {name: value for name, value in os.environ.items() if name != OUTPUTS_VARIABLE}
    environment[DATABASE_VARIABLE] = url
    if file := os.environ.get(FROM_OUTPUTS_VARIABLE):
        environment[OUTPUTS_VARIABLE] = file
    command: Sequence[str] = [sys.executable, "-m", "kilo.cli", "promote", *arguments, "--json"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().removeprefix("kilo: error: ") or f"it ended with {done.returncode}"
        kind = {ExitCode.UNREACHABLE: Unreachable, ExitCode.BAD_INPUT: BadInput}.get(
            ExitCode(done.returncode) if done.returncode in set(ExitCode) else ExitCode.CHECK_FAILED,
            CheckFailed,
        )
        raise kind(said) from None
