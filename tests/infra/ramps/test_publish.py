"""Committing a ramp's steps: before they run, after a revert, and beside what others push."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.ramps.publish import Committing
from kilo.engine import NotDeployed
from kilo.tenancy import RampWeight

CHANGES: dict[tuple[str, str], RampWeight] = {("acme", "search"): 5}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@dataclass
class Seen:
    """An engine that notes what the branch had when it ran."""

    branch: Path
    heads: list[str] = field(default_factory=list[str])

    async def deploy(self, changes: Mapping[tuple[str, str], RampWeight], *, urgent: bool) -> None:
        self.heads.append(git(self.branch, "log", "-1", "--format=%s", "main").strip())


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "ramps")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ramps@example.com")
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "branch")
    git(tmp_path, "clone", "--quiet", "branch", "clone")
    clone = tmp_path / "clone"
    (clone / "Pulumi.dev.yaml").write_text("weight: 0\n\n\n\n\nother: 1\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "first")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    git(clone, "branch", "--set-upstream-to", "origin/main")
    return clone


def pushed_by_another(clone: Path, text: str) -> None:
    other = clone.parent / "other"
    git(clone.parent, "clone", "--quiet", "branch", "other")
    (other / "Pulumi.dev.yaml").write_text(text)
    git(other, "commit", "--quiet", "-am", "theirs")
    git(other, "push", "--quiet")


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_step_is_pushed_before_it_runs_and_a_revert_after(clone: Path, urgent: bool) -> None:
    seen = Seen(clone.parent / "branch")
    file = clone / "Pulumi.dev.yaml"
    file.write_text(file.read_text().replace("weight: 0", "weight: 5"))
    await Committing(seen, file).deploy(CHANGES, urgent=urgent)
    assert seen.heads == ["first" if urgent else "Ramp acme search 5"]
    assert "weight: 5" in git(seen.branch, "show", "main:Pulumi.dev.yaml")


async def test_what_others_pushed_is_kept(clone: Path) -> None:
    pushed_by_another(clone, "weight: 0\n\n\n\n\nother: 2\n")
    file, seen = clone / "Pulumi.dev.yaml", Seen(clone.parent / "branch")
    file.write_text(file.read_text().replace("weight: 0", "weight: 5"))
    await Committing(seen, file).deploy(CHANGES, urgent=False)
    assert git(seen.branch, "show", "main:Pulumi.dev.yaml") == "weight: 5\n\n\n\n\nother: 2\n"


async def test_the_same_line_changed_by_another_stops_the_step(clone: Path) -> None:
    pushed_by_another(clone, "weight: 9\n\n\n\n\nother: 1\n")
    file, seen = clone / "Pulumi.dev.yaml", Seen(clone.parent / "branch")
    file.write_text(file.read_text().replace("weight: 0", "weight: 5"))
    with pytest.raises(NotDeployed, match="does not take the commit"):
        await Committing(seen, file).deploy(CHANGES, urgent=False)
    assert seen.heads == []
