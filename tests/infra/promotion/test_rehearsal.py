"""What a rehearsal of a roll-back finds in the end: nothing amiss, or what is, or that nobody can tell."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from infra.promotion.rehearsal import Rehearsal
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.observe import metrics
from kilo.promotion.record import Phase
from tests.runtime.goals.conftest import History, history, outputs

__all__ = ["history", "outputs"]

AGO_SECONDS = 300


@pytest.fixture
def rehearsal(
    database_url: str,
    history: History,
    outputs: StackOutputs,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Rehearsal:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    history.add(metrics.OUTBOX_LOST.name, 0.0)
    history.start()
    monitoring = outputs.monitoring.model_copy(update={"prometheus_url": history.url})
    stage = outputs.model_copy(update={"monitoring": monitoring})
    return Rehearsal(stage, None, database_url, time.time() - AGO_SECONDS, 0)


def delivered(url: str, *, again: int = 0, lost: int = 0) -> None:
    """A thousand events, of which some came again and others did not come."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "WITH e AS (INSERT INTO events"
            " (fingerprint, tenant, received_at, aggregate, aggregate_id, kind, payload)"
            " SELECT n::text, 'acme', now() - interval '2 min', 'order', '1', 'order.created', '{}'"
            " FROM generate_series(1, 1000) n RETURNING fingerprint, received_at)"
            " INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher, duplicates)"
            " SELECT 'events', fingerprint, received_at, 'acme', 'worker', (fingerprint::int <= %s)::int"
            " FROM e WHERE fingerprint::int > %s",
            (again + lost, lost),
        )


def test_events_that_came_and_one_that_came_twice_are_good(rehearsal: Rehearsal) -> None:
    delivered(rehearsal.url, again=1)
    assert rehearsal(Phase.OFF) == {"lost": 0, "duplicates": 0}


def test_two_in_a_thousand_that_came_twice_are_too_many(rehearsal: Rehearsal) -> None:
    delivered(rehearsal.url, again=2)
    with pytest.raises(CheckFailed, match=r"^Rate of duplicates: 0\.2 %, not <= 0\.1 %"):
        rehearsal(Phase.OFF)


def test_one_that_did_not_come_is_lost(rehearsal: Rehearsal) -> None:
    delivered(rehearsal.url, lost=1)
    with pytest.raises(CheckFailed, match=r"^Events lost: 1, not"):
        rehearsal(Phase.OFF)


def test_nothing_is_good_that_nobody_can_tell(rehearsal: Rehearsal) -> None:
    with pytest.raises(CheckFailed, match=r"^Events lost: no event was taken in"):
        rehearsal(Phase.OFF)
