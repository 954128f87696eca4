"""What must not ride along with a promotion: settings that were never deployed, and another program."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kilo.engine import EngineSession
from kilo.errors import CheckFailed

_STAGE_FILES = ":(exclude,glob)Pulumi.*.yaml"


def refuse_undeployed(session: EngineSession, history: Sequence[Mapping[str, Any]]) -> None:
    """See to it that the stage's file is what was deployed last, by the engine's record.

    Args:
        session: on the stage.
        history: the updates of its stack, the newest first.

    Raises:
        CheckFailed: it was never deployed, its last deployment failed, or the file says something else.
    """
    last = next((each for each in history if each.get("kind") == "update"), None)
    if last is None or last.get("result") != "succeeded":
        said = "was never deployed" if last is None else f"'s last deployment {last.get('result')}"
        msg = f"{session.stage} {said}; deploy it first: pulumi up -s {session.stage}"
        raise CheckFailed(msg.replace(" 's", "'s"))
    file = json.loads(asyncio.run(session.run(["config", "--json", "--stack", session.stage])))
    now, then = _values(file), _values(last.get("config") or {})
    other = sorted(key for key in {*now, *then} if now.get(key) != then.get(key))
    if other:
        msg = (
            f"Pulumi.{session.stage}.yaml: {other[0]} is not what was deployed, and would ride along; "
            f"deploy it first: pulumi up -s {session.stage}"
        )
        raise CheckFailed(msg)


def _values(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {key: _value(str(entry.get("value"))) for key, entry in config.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def refuse_other_program(project: Path, commit: str) -> None:
    """See to it that this checkout is the program of the release, apart from the stages' files.

    Raises:
        CheckFailed: it is another one, or has changes.
    """
    done = subprocess.run(
        ["git", "diff", "--name-only", commit or "HEAD", "--", ".", _STAGE_FILES],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not commit:
        msg = f"this checkout does not know the release's commit {commit[:12] or '(none)'}; fetch it"
        raise CheckFailed(msg)
    if changed := done.stdout.split():
        msg = f"{changed[0]} is not as in the release's commit; check that out: git switch -d {commit[:12]}"
        raise CheckFailed(msg)
