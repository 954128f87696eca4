"""A connector that runs and moves nothing is started again by its liveness probe; a quiet one is not."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.chaos.conftest import wait_for, write
from tests.chaos.proxy import Proxy
from tests.chaos.run import STALLED_SECONDS, Scene
from tests.patience import PATIENCE_SECONDS


def start(made: Scene, to_database: Proxy) -> list[str]:
    """Everything on the way of change capture, and what has gone that way."""
    platform = made.platform
    platform.start_consumer()
    platform.start_reconciler()
    shared, platform.database_port = platform.database_port, to_database.port
    platform.start_debezium()
    platform.database_port = shared
    platform.start_cdc_watch(STALLED_SECONDS)
    written = write(platform.url, range(50), "payment", "2")
    wait_for(made, written)
    return written


def seconds_until_started_again(made: Scene) -> float:
    began = time.monotonic()
    while not made.platform.keep_connector_alive():
        assert time.monotonic() - began < 90, "never started again"
        time.sleep(1)
    return time.monotonic() - began


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
@pytest.mark.parametrize("how", ["connection hangs", "process frozen"])
def test_a_stalled_connector_is_started_again(made: Scene, how: str) -> None:
    with Proxy(made.platform.postgres.port) as to_database:
        written = start(made, to_database)
        assert made.platform.debezium
        pid = made.platform.debezium.pid
        assert pid
        if how == "process frozen":
            os.kill(pid, signal.SIGSTOP)
        else:
            to_database.hang()
        written += write(made.platform.url, range(50, 100), "payment", "2")
        seconds = seconds_until_started_again(made)
        if how == "connection hangs":
            assert seconds > STALLED_SECONDS - 2
        wait_for(made, written)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_neither_quiet_nor_a_long_transaction_of_others_is_stalled(made: Scene) -> None:
    platform = made.platform
    with Proxy(platform.postgres.port) as to_database:
        written = start(made, to_database)
        platform.sql("CREATE TABLE others AS SELECT 0 AS n, repeat('x', 200) AS filler")
        assert platform.debezium
        pid = platform.debezium.pid
        for rows in (0, 1, 2_000_000):
            platform.sql("INSERT INTO others SELECT n, repeat('x', 200) FROM generate_series(1, %s) n", rows)
            until = time.monotonic() + 2 * STALLED_SECONDS
            while time.monotonic() < until:
                assert not platform.keep_connector_alive(), f"started again after {rows} rows"
                time.sleep(1)
        assert platform.debezium.pid == pid
        written += write(platform.url, range(50, 100), "payment", "2")
        wait_for(made, written)
