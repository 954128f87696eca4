from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox import bootstrap

ROOT = Path(bootstrap.__file__).parent.parent
HERE = ("Linux", "x86_64")
_OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}


class Usage(NamedTuple):
    free: int


@pytest.fixture
def fresh_tree(tmp_path: Path) -> Path:
    """What the Makefile needs of a fresh clone."""
    tree = tmp_path / "kilo"
    (tree / "sandbox").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tree)
    shutil.copy(ROOT / "sandbox" / "bootstrap.py", tree / "sandbox")
    shutil.copy(ROOT / "pyproject.toml", tree)
    (tree / "runtime").mkdir()
    shutil.copy(ROOT / "runtime" / "pyproject.toml", tree / "runtime")
    shutil.copytree(ROOT / "requirements", tree / "requirements")
    return tree


def make(tree: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Make tells a make below it of itself, and these tests may run below one.
    variables = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
    if path:
        variables["PATH"] = str(path)
    executable = shutil.which("make")
    assert executable
    return subprocess.run(
        [executable, *arguments], cwd=tree, env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with little more than a shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "sh", "awk", "rm", "find"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def test_machine_that_fits_is_accepted() -> None:
    bootstrap.check_machine((3, 11), *HERE)


def test_old_python_is_told_what_to_install() -> None:
    with pytest.raises(
        bootstrap.Problem, match=r"Python 3.11 or later .* is 3\.10: install it .*PYTHON=/path"
    ):
        bootstrap.check_machine((3, 10), *HERE)


@pytest.mark.parametrize("machine", [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_other_machines_are_refused(machine: tuple[str, str]) -> None:
    with pytest.raises(bootstrap.Problem, match=f"this is {machine[0]} on {machine[1]}"):
        bootstrap.check_machine((3, 11), *machine)


def test_python_without_venv_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(bootstrap.Problem, match="apt-get install python3-venv"):
        bootstrap.check_machine((3, 11), *HERE)


def test_full_disk_is_said_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(3_900_000_000))  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(bootstrap.Problem, match=r"4 GB are needed and 3\.9 GB are free"):
        bootstrap.check_disk(tmp_path)


def test_old_pythons_can_read_the_file_that_refuses_them() -> None:
    ast.parse((ROOT / "sandbox" / "bootstrap.py").read_text(), feature_version=(3, 7))


def test_stamp_follows_the_locks_and_the_place(fresh_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = bootstrap.stamp("dev")
    monkeypatch.setattr(bootstrap, "ROOT", fresh_tree)
    moved = bootstrap.stamp("dev")
    assert moved.name != here.name
    assert bootstrap.stamp("bench").name != moved.name
    (fresh_tree / "pyproject.toml").write_text("")
    assert bootstrap.stamp("dev").name != moved.name


def test_stamp_makes_the_next_run_do_nothing(fresh_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", fresh_tree)
    (fresh_tree / ".venv").mkdir()
    bootstrap.stamp("dev").touch()
    monkeypatch.setattr(bootstrap, "install", lambda lock: pytest.fail("installed again"))  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr("sys.argv", ["bootstrap.py", "dev"])
    assert bootstrap.main() == 0


@pytest.mark.parametrize("target", ["down", "status"])
def test_targets_that_need_nothing_build_nothing_on_a_fresh_machine(fresh_tree: Path, target: str) -> None:
    run = make(fresh_tree, target)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "Nothing runs: the dev stage was never brought up here.\n"
    assert not (fresh_tree / ".venv").exists()


def test_clean_is_idempotent_and_keeps_the_sources(fresh_tree: Path) -> None:
    for leftover in (".venv/lib", ".kilo/objects", "sandbox/__pycache__"):
        (fresh_tree / leftover).mkdir(parents=True)
    before = {"Makefile", "pyproject.toml", "requirements", "runtime", "sandbox"}
    for _ in range(2):
        assert make(fresh_tree, "clean").returncode == 0
        assert {entry.name for entry in fresh_tree.iterdir()} == before
    assert not (fresh_tree / "sandbox" / "__pycache__").exists()


def write_python(folder: Path, name: str, version: tuple[int, int]) -> None:
    """A Python that claims to be of a version, and that only says which file it was to run."""
    script = f'''#!/bin/sh
if [ "$1" = -c ]; then exec {sys.executable} -c "import sys; sys.version_info = {version}; $2"; fi
echo "{name} runs $1"
'''
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def test_up_without_a_new_enough_python_is_one_clear_line(fresh_tree: Path, bare_path: Path) -> None:
    write_python(bare_path, "python3", (3, 10))
    run = make(fresh_tree, "up", path=bare_path)
    first, *rest = run.stderr.splitlines()
    assert first.startswith("kilo: error: Python 3.11 or later is needed and none is on PATH: install it")
    assert all(line.startswith("make: ***") for line in rest)
    assert run.returncode == 2
    assert run.stdout == ""


def test_up_passes_over_an_old_python3_for_a_newer_one(fresh_tree: Path, bare_path: Path) -> None:
    write_python(bare_path, "python3", (3, 10))
    write_python(bare_path, "python3.12", (3, 12))
    run = make(fresh_tree, "environment", path=bare_path)
    assert run.stdout == "python3.12 runs sandbox/bootstrap.py\n"


def test_help_names_every_target(fresh_tree: Path) -> None:
    shown = {line.split()[1] for line in make(fresh_tree).stdout.splitlines()}
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY"))
    assert shown == set(phony.split()[1:]) - {"environment"}
