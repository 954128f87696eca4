"""A dev stage of its own for previews, and services of the template in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Stage
from tests.runtime.scaffold.variants import template_repository

EVERY_CHECK = ("rollout", "probes", "smoke test", "event", "objective", "policy", "trace", "signature")


class Platform(Stage):
    """A checkout with a stage that is up, and beside it the repository that services are made from."""

    def __init__(self, directory: Path, template: Path) -> None:
        super().__init__(directory)
        shutil.copytree(ROOT / "charts", directory / "charts")
        self.template = template
        self.services = directory / "services"
        self.services.mkdir()

    def service(self, name: str, *options: str) -> Path:
        """A service by ``kilo svc new``."""
        into = self.services / name
        done = self.kilo(
            "svc", "new", name, "--template", str(self.template), "--into", str(into), "--no-ask", *options
        )
        assert done.returncode == 0, done.stderr
        return into

    def up(self, service: Path, pr: int, *options: str) -> dict[str, Any]:
        """``kilo preview up --json``, whose checks may be red."""
        done = self.kilo("preview", "up", str(service), "--pr", str(pr), "--json", *options)
        assert done.returncode in {0, 1}, done.stderr
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        assert (done.returncode == 0) == document["green"], done.stderr
        return document

    def make(self, service: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``make`` in the service's folder, with ``kilo`` on PATH."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["make", *arguments],
            cwd=service,
            env={**_without_stage(), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    def down(self, service: Path, pr: int) -> None:
        """``kilo preview down``."""
        done: subprocess.CompletedProcess[str] = self.kilo("preview", "down", str(service), "--pr", str(pr))
        assert done.returncode == 0, done.stderr

    def left_of(self, preview: str) -> list[str]:
        """What the machine still has of a preview: files, folders, objects, state, addresses, processes."""
        namespace = f"preview-{preview}"
        found = [
            str(path.relative_to(self.home)) for path in self.home.rglob("*") if preview in path.name.lower()
        ]
        owners = [path for path in self.home.glob("images/*/preview") if path.read_text() == preview]
        addresses = json.loads((self.home / "addresses.json").read_bytes())
        found += [str(path) for path in owners]
        found += [name for name in addresses if f"/{namespace}/" in name]
        found += [line for line in _command_lines() if f"{self.home}/" in line and namespace in line]
        # The engine's own bookkeeping: a history of stacks that were removed, and copies of their states.
        stack = f"state/.pulumi/stacks/kilo/preview-dev-{preview}.json"
        return [each for each in found if each == stack or not each.startswith("state/.pulumi/")]


def _without_stage() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("KILO_", "PULUMI_"))}


def _command_lines() -> list[str]:
    lines: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    template = template_repository(tmp_path_factory.mktemp("template") / "platform")
    made = Platform(tmp_path_factory.mktemp("stage"), template)
    done = made.kilo("up", "--no-tour")
    assert done.returncode == 0, done.stderr
    yield made
    made.kilo("down")
    assert made.processes() == []
