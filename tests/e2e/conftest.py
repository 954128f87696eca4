"""A dev stage of its own, brought up once for all tests of this folder, as a user brings it up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandbox import daemon
from sandbox.engine.environment import overlay
from sandbox.servers.leftovers import processes_of

ROOT = Path(__file__).parents[2]
# A machine under load takes its time; nothing here depends on how long.
PATIENCE = 600
_PROGRAMS = Path(sys.executable).parent
KILO = (str(_PROGRAMS / "kilo"),)


class Stage:
    """A copy of the project with its own ``.kilo``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
            shutil.copy(ROOT / name, directory)
        shutil.copytree(ROOT / "infra", directory / "infra", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / ".venv").symlink_to(sys.prefix)

    @property
    def home(self) -> Path:
        return self.directory / ".kilo"

    @property
    def endpoints(self) -> daemon.Endpoints:
        found = daemon.running(self.directory)
        assert found is not None
        return found

    @property
    def outputs(self) -> dict[str, Any]:
        return json.loads((self.home / "outputs.json").read_bytes())

    def kilo(
        self,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        given: str | None = None,
        program: Sequence[str] = KILO,
        seconds: float | None = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """``kilo`` in a shell that knows nothing of the stage but ``variables``; ``given`` is its input."""
        return subprocess.run(
            [*program, *arguments],
            cwd=self.directory,
            env=_environment(variables),
            input=given or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    @staticmethod
    def shell(variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a shell that knows nothing of the stage but these."""
        return _environment(variables)

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Plain ``pulumi`` in a shell that ``kilo env`` has set up."""
        process = self.begin(f"pulumi {' '.join(arguments)}")
        output, errors = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start a command in such a shell, in a process group of its own."""
        return subprocess.Popen(
            ["sh", "-c", f'eval "$(kilo env)" && exec {command}'],
            cwd=self.directory,
            env=_environment({"PATH": f"{_PROGRAMS}:{os.environ['PATH']}"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[str]:
        """What runs for this stage besides the daemon."""
        return [process.name() for process in processes_of(str(self.home))]


def _environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those that name a stage."""
    kept = overlay({})
    own = {name: value for name, value in kept.items() if not name.startswith(("KILO_", "PULUMI_"))}
    return own | dict(extra or {})


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("stage"))
    yield made
    made.kilo("down")
    assert made.processes() == []
