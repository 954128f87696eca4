"""One daemon a project, however many look whether there is one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import daemon


def home_of(project: Path, pid: int | None = None) -> daemon.Home:
    home = daemon.Home(project / ".kilo")
    home.directory.mkdir()
    home.lock.touch()
    endpoints: dict[str, str | int] = dict.fromkeys(daemon.Endpoints.__annotations__, "")
    endpoints["pid"] = pid or os.getpid()
    home.endpoints.write_text(json.dumps(endpoints))
    return home


def test_a_daemon_that_is_gone_is_not_taken_for_running_by_two_who_look(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with home.lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert daemon.running(tmp_path) is None


def test_a_daemon_that_runs_is_found(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with home.lock.open("a+") as lock:
        assert daemon.take(lock)
        assert daemon.running(tmp_path) is not None


def test_endpoints_that_a_killed_daemon_left_are_not_its_successors(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    home = home_of(tmp_path, ended.pid)
    with home.lock.open("a+") as lock:
        assert daemon.take(lock)
        assert daemon.running(tmp_path) is None


def test_who_only_looks_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    looking = home.lock.open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, looking.close).start()
    with home.lock.open("a+") as lock:
        assert daemon.take(lock)


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with home.lock.open("a+") as first, home.lock.open("a+") as second:
        assert daemon.take(first)
        assert not daemon.take(second)


class Started(Exception):
    """A new daemon would be started now."""


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(*_: str) -> None:
        raise Started

    monkeypatch.setattr(daemon.toolchain, "ensure", ensure)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the daemon's lock until it is told to stop."""
    home = home_of(tmp_path)
    code = (
        "import fcntl, os, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "lock.write(str(os.getpid())); lock.flush(); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(home.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def say(project: Path, process: subprocess.Popen[bytes], program: str) -> None:
    endpoints = dict.fromkeys(daemon.Endpoints.__annotations__, "") | {"pid": process.pid, "program": program}
    daemon.Home(project / ".kilo").endpoints.write_text(json.dumps(endpoints))


@pytest.mark.usefixtures("starting")
def test_a_daemon_of_this_program_is_kept(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    say(tmp_path, other, daemon.program())
    assert daemon.ensure_running(tmp_path).pid == other.pid
    assert other.poll() is None


@pytest.mark.usefixtures("starting")
def test_a_daemon_of_an_earlier_program_is_replaced(
    tmp_path: Path, other: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    say(tmp_path, other, "earlier")
    threading.Thread(target=other.wait).start()
    with pytest.raises(Started):
        daemon.ensure_running(tmp_path)
    assert other.returncode == -signal.SIGTERM
    assert "an earlier program" in capsys.readouterr().err
