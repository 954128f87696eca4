from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kilo.errors import Unreachable
from sandbox.toolchain.cache import Recipe, cache_root, install, require_disk_space
from sandbox.toolchain.progress import Step

# A process that makes a directory of two files, slowly, and writes down that it did.
MAKER = """
import os, signal, sys, time
from pathlib import Path
from sandbox.toolchain.cache import Recipe, install
from sandbox.toolchain.progress import Step

log, die = Path(sys.argv[1]), sys.argv[2] == "die"

def make(directory, step):
    (directory / "first").write_text("1")
    with log.open("a") as file:
        file.write("made\\n")
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    (directory / "second").write_text("2")

print(install(Recipe("thing", "a thing", "inputs", 0, make), Step(lambda detail: None)))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kilo" / "toolchain"


def start_maker(log: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MAKER, log, mode], stdout=subprocess.PIPE, text=True)


def recipe(inputs: str = "inputs", disk_bytes: int = 0) -> Recipe:
    def make(directory: Path, step: Step) -> None:
        (directory / "first").write_text("1")
        (directory / "second").write_text("2")

    return Recipe("thing", "a thing", inputs, disk_bytes, make)


def silent() -> Step:
    return Step(lambda detail: None)


def test_two_processes_make_it_once_and_both_have_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    makers = [start_maker(log, "live") for _ in range(2)]
    answers = {maker.communicate()[0].strip() for maker in makers}
    assert log.read_text() == "made\n"
    (directory,) = map(Path, answers)
    assert sorted(file.name for file in directory.iterdir()) == ["first", "second"]


def test_kill_in_the_middle_leaves_nothing_half_and_the_next_run_makes_it(
    tmp_path: Path, cache: Path
) -> None:
    assert start_maker(tmp_path / "log", "die").wait() == -9
    assert len(list(cache.glob(".partial-thing-*"))) == 1
    assert not recipe().directory.exists()
    directory = install(recipe(), silent())
    assert sorted(file.name for file in directory.iterdir()) == ["first", "second"]
    assert list(cache.glob(".partial-*")) == []


def test_failure_leaves_nothing(cache: Path) -> None:
    def make(directory: Path, step: Step) -> None:
        (directory / "first").write_text("1")
        msg = "the download broke off"
        raise Unreachable(msg)

    with pytest.raises(Unreachable, match="broke off"):
        install(Recipe("thing", "a thing", "inputs", 0, make), silent())
    assert [path for path in cache.iterdir() if not path.name.startswith(".lock-")] == []


def test_what_is_there_is_not_made_again() -> None:
    directory = install(recipe(), silent())
    (directory / "first").write_text("touched")
    assert install(recipe(), silent()) == directory
    assert (directory / "first").read_text() == "touched"


def test_changed_inputs_are_another_directory() -> None:
    assert recipe("version 1").directory != recipe("version 2").directory


def test_cache_is_found_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "kilo" / "toolchain"


def test_too_little_disk_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1_500_000_000))  # pyright: ignore[reportUnknownLambdaType]
    require_disk_space([recipe(disk_bytes=1_400_000_000)])
    with pytest.raises(Unreachable, match=r"2\.8 GB are needed .*thing, thing, 1\.5 GB are free; free some"):
        require_disk_space([recipe(disk_bytes=1_400_000_000)] * 2)


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unreachable, match=r"can't be created .*point XDG_CACHE_HOME"):
        install(recipe(), silent())
