"""An engine on PATH that notes its calls and answers from files: what the real one does, tests/e2e shows.

Files of the project's folder that a test writes: ``state``, ``history``, ``plan`` and ``config`` are what it
says; ``moves`` has the state change with every look at it, ``locked`` and ``broken`` have updates fail.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = """#!/bin/sh
echo "$@" >> calls
{first}
case "$1" in
  stack) if [ "$2" = history ]; then cat history; exit; fi
      cat state; if [ -e moves ]; then echo ' ' >> state; fi ;;
  config) cat config ;;
  preview) while [ "$1" != --save-plan ]; do shift; done; cp plan "$2" ;;
  up) if [ -e locked ]; then echo "error: the stack is currently locked by 1 lock(s)." >&2; exit 255; fi
      if [ -e broken ]; then echo "error: a pod does not start" >&2; exit 255; fi ;;
esac
"""


def noting_engine(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    state: Mapping[str, Any],
    plan: Mapping[str, Any],
    first: str = "",
) -> Path:
    """Put it on PATH for the rest of the test.

    Args:
        project: where it runs, and where its files lie.
        state: what the stack's export says.
        plan: what a preview saves.
        first: a line of shell that runs before it answers.

    Returns:
        The project's folder.
    """
    engine = project / "bin" / "pulumi"
    engine.parent.mkdir()
    engine.write_text(_SCRIPT.format(first=first))
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{engine.parent}{os.pathsep}{os.environ['PATH']}")
    (project / "state").write_text(json.dumps(state))
    (project / "plan").write_text(json.dumps(plan))
    return project


def calls(project: Path) -> list[str]:
    """The commands that it was given, in their order."""
    return [line.split()[0] for line in (project / "calls").read_text().splitlines()]
