"""A stage with shortened waits, a receiver of its alerts, and a table of what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.measured import Measured
from tests.alerts.receiver import Receiver, receiving
from tests.alerts.stage import AlertStage


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[AlertStage]:
    # Whoever works on these tests has one that is up, and takes it down.
    kept = os.environ.get("KILO_ALERTS_STAGE")
    made = AlertStage(Path(kept) if kept else tmp_path_factory.mktemp("stage"))
    try:
        if not kept:
            done = made.kilo("up", "--no-tour")
            assert done.returncode == 0, done.stdout + done.stderr
        made.shorten(receiver.url)
        yield made
    finally:
        if not kept:
            made.kilo("down")
    assert kept or made.processes() == []


@pytest.fixture(scope="session")
def measured(stage: AlertStage, receiver: Receiver, pytestconfig: pytest.Config) -> Iterator[Measured]:
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")
    found = Measured(receiver, stage.outputs["monitoring"]["prometheus_url"])
    yield found
    with capture.global_and_fixture_disabled():
        print("", *found.table(), sep="\n")
