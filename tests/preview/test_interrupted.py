"""Killed at several points of up and down: the next run finishes it or removes it, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import PATIENCE
from tests.patience import until
from tests.preview.conftest import Platform

pytestmark = pytest.mark.timeout(3 * PATIENCE)

KILO = Path(sys.executable).with_name("kilo")


@contextmanager
def begun(platform: Platform, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """A command that is under way; it is over when the block is, also where a test fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KILO_", "PULUMI_"))}
    process = subprocess.Popen(
        [str(KILO), "preview", *arguments],
        cwd=platform.directory,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all_of(process)


def kill_all_of(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and its engine, providers and program with it, as a machine that goes away."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in every:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def has_object(platform: Platform, preview: str, kind: str) -> bool:
    return any((platform.home / "objects").glob(f"{kind}.*/preview-{preview}/*.json"))


@pytest.fixture(scope="module")
def service(platform: Platform) -> Path:
    return platform.service("shaky")


@pytest.mark.parametrize("kind", ["Secret", "StatefulSet", "Job", "Deployment"])
def test_an_up_that_was_killed_is_finished_by_the_next(platform: Platform, service: Path, kind: str) -> None:
    with begun(platform, "up", str(service), "--pr", "3") as process:
        until(lambda: has_object(platform, "pr-3-shaky", kind) or process.poll() is not None)
        assert process.poll() is None, "it was over before it could be killed"
        kill_all_of(process)
    report = platform.up(service, 3)
    assert report["green"], report["checks"]
    platform.down(service, 3)
    assert platform.left_of("pr-3-shaky") == []


def test_an_up_that_was_killed_is_removed_by_down(platform: Platform, service: Path) -> None:
    with begun(platform, "up", str(service), "--pr", "4") as process:
        until(lambda: has_object(platform, "pr-4-shaky", "StatefulSet") or process.poll() is not None)
        kill_all_of(process)
    platform.down(service, 4)
    assert platform.left_of("pr-4-shaky") == []


def test_a_command_that_alone_was_killed_leaves_its_engine_to_finish(
    platform: Platform, service: Path
) -> None:
    with begun(platform, "up", str(service), "--pr", "6") as process:
        until(lambda: has_object(platform, "pr-6-shaky", "StatefulSet") or process.poll() is not None)
        process.kill()
        process.wait()
    platform.down(service, 6)
    assert platform.left_of("pr-6-shaky") == []


def test_a_down_that_was_killed_is_finished_by_the_next(platform: Platform, service: Path) -> None:
    assert platform.up(service, 8)["green"]
    with begun(platform, "down", str(service), "--pr", "8") as process:
        until(lambda: not has_object(platform, "pr-8-shaky", "Deployment") or process.poll() is not None)
        kill_all_of(process)
    platform.down(service, 8)
    assert platform.left_of("pr-8-shaky") == []
