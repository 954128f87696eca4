"""One daemon a project, however many look whether there is one."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
from pathlib import Path

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
