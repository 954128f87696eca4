"""A plugin ends when it is told to, or when its engine is gone, and takes nothing down before."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import until

ROOT = Path(__file__).parents[2]
# Stands for freeing hundreds of thousands of an SDK's objects.
PLUGIN = """
import atexit
from sandbox import plugin
atexit.register(print, "took the interpreter down")
plugin.serve(lambda server: None, threads=1)
"""
# An engine that ends without a word to its plugin.
KILLED_ENGINE = """
import subprocess, sys
plugin = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(plugin.pid, plugin.stdout.readline().strip(), flush=True)
"""


@contextmanager
def begun(*arguments: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plugin_that_is_told_to_end_just_ends(number: signal.Signals) -> None:
    with begun(PLUGIN) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdecimal()
        process.send_signal(number)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_a_plugin_whose_engine_was_killed_ends() -> None:
    with begun(KILLED_ENGINE, PLUGIN) as engine:
        printed, _ = engine.communicate()
    pid, port = map(int, printed.split())
    assert port > 0
    until(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False
