"""What writers' transactions, the sequence and clocks can do to the outbox, over the whole path."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial

import psycopg
import pytest

from kilo.outbox import enqueue
from tests.chaos.conftest import an_event, effects, wait_for, write
from tests.chaos.run import Scene
from tests.patience import PATIENCE_SECONDS, until

AGGREGATES = ("order", "payment")
"""The first goes by the worker, the second by change capture."""


def start(made: Scene) -> None:
    made.platform.start_worker()
    made.platform.start_consumer()
    made.platform.start_reconciler()
    made.platform.start_debezium()


def outbox_status(made: Scene) -> dict[str, float]:
    environment = made.platform.processes["worker"].env
    run = subprocess.run(
        [sys.executable, "-m", "kilo.cli", "outbox", "status", "--json"],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def _handled(made: Scene, expected: set[str]) -> bool:
    return effects(made).keys() >= expected


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_late_commits_and_rollbacks(made: Scene) -> None:
    start(made)
    url, written = made.platform.url, list[str]()
    for aggregate in AGGREGATES:
        with psycopg.connect(url) as late, psycopg.connect(url) as undone:
            written.append(enqueue(late, an_event(aggregate, f"late-{aggregate}", 0)).fingerprint)
            enqueue(undone, an_event(aggregate, f"undone-{aggregate}", 0))
            # More than a batch of the worker's goes by between.
            written += write(url, range(3000), aggregate, f"between-{aggregate}")
            expected = set(written[:-3001] + written[-3000:])
            until(partial(_handled, made, expected), "what came between waits for what is late")
            late.commit()
            undone.rollback()
        wait_for(made, written)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_an_xmin_held_for_minutes_holds_no_event_up_and_is_told(made: Scene) -> None:
    start(made)
    url = made.platform.url
    with psycopg.connect(url) as writer, psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM outbox")
        held = enqueue(writer, an_event("order", "held", 0)).fingerprint
        written: list[str] = []
        ends = time.monotonic() + 130
        n = 0
        while time.monotonic() < ends:
            for aggregate in AGGREGATES:
                written += write(url, range(n, n + 20), aggregate, f"flows-{aggregate}")
            n += 20
            wait_for(made, written)
            time.sleep(1)
        status = outbox_status(made)
        assert status["watermark_age_seconds"] > 120
        assert status["watermark_pid"] in {writer.info.backend_pid, reader.info.backend_pid}
        writer.commit()
    wait_for(made, [*written, held])


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_sequence_that_begins_anew_and_gaps_beyond_a_batch(made: Scene) -> None:
    start(made)
    url, written = made.platform.url, write(made.platform.url, range(50))
    wait_for(made, written)
    # What many rollbacks leave.
    made.platform.sql("SELECT setval('outbox_id_seq', nextval('outbox_id_seq') + 100000)")
    written += write(url, range(50, 100))
    wait_for(made, written)
    # A sequence that wraps, or that a failover to a logical replica set back.
    made.platform.sql("ALTER SEQUENCE outbox_id_seq RESTART WITH 60")
    written += write(url, range(100, 150))
    for n in range(5):
        with psycopg.connect(url) as connection:
            written += [
                enqueue(connection, an_event("order", f"large-{n}", each)).fingerprint for each in range(900)
            ]
    wait_for(made, written)
    assert made.platform.sql("SELECT min(id) FROM outbox WHERE aggregate_id = 'large-0'")[0][0] < 1000


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_clock_that_jumps(made: Scene) -> None:
    start(made)
    made.platform.start_worker("worker-2")
    written: list[str] = []
    for jump in (
        "- interval '40 days'",
        "+ interval '40 days'",
        "- interval '1 hour'",
        "+ interval '1 hour'",
    ):
        # The database's clock gives the rows their time and ends the leases.
        for aggregate in AGGREGATES:
            name = f"{aggregate}-{len(written)}"
            made.platform.sql(
                "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
                f" SELECT 'initech', '{aggregate}', '{name}', 'order.made', '{{}}', 'initech/{name}-' || n"
                " FROM generate_series(1, 20) n;"
                " SET LOCAL session_replication_role = replica;"
                f" UPDATE outbox SET created_at = now() {jump} WHERE aggregate_id = '{name}';"
                f" UPDATE outbox_fingerprints SET created_at = now() {jump}"
                f" WHERE fingerprint LIKE 'initech/{name}-%'"
            )
            written += [f"initech/{name}-{n}" for n in range(1, 21)]
        made.platform.sql(f"UPDATE leases SET expires_at = expires_at {jump}")
        written += write(made.platform.url, range(20), "order", f"after-{len(written)}")
        wait_for(made, written)
    # What lies in no day's partition is known by its fingerprint all the same.
    made.platform.sql(
        "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
        " VALUES ('initech', 'order', 'order-0', 'order.made', '{}', 'initech/order-0-1')"
    )
    assert made.platform.sql("SELECT count(*) FROM outbox WHERE fingerprint = 'initech/order-0-1'") == [(1,)]
