"""A platform a test, of which everything can be killed, cut and stalled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kilo.bus import Received, connect
from kilo.outbox import Event, enqueue
from tests.chaos.run import Scene, scene
from tests.patience import until


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Scene]:
    """Real servers over NATS; processes are started by the test."""
    with scene(tmp_path, "nats") as one:
        yield one


def an_event(aggregate: str, aggregate_id: str, n: int) -> Event:
    """One of a tenant without encrypted fields."""
    return Event(
        "initech", aggregate, aggregate_id, f"{aggregate}.made", {"n": n}, f"initech/{aggregate_id}-{n}"
    )


def write(url: str, numbers: range, aggregate: str = "order", aggregate_id: str = "1") -> list[str]:
    """Write events in a transaction each; their fingerprints."""
    written: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for n in numbers:
            with connection.transaction():
                written.append(enqueue(connection, an_event(aggregate, aggregate_id, n)).fingerprint)
    return written


async def in_stream(one: Scene) -> list[Received]:
    """Everything that the bus holds."""
    bus = await connect(one.platform.bus.url)
    stream = one.platform.outputs.bus.stream
    found: list[Received] = []
    try:
        newest = await bus.last_position(stream)
        async for batch in bus.read(stream, 0):
            found += batch
            if not batch or found[-1].position >= newest:
                break
    finally:
        await bus.close()
    return found


def effects(one: Scene) -> Counter[str]:
    """How often each event was handled, by its fingerprint."""
    rows = one.platform.sql("SELECT fingerprint FROM inbox WHERE publisher <> 'discarded'")
    return Counter(row[0] for row in rows)


def wait_for(one: Scene, fingerprints: list[str]) -> None:
    """Wait until each has had its effect; nothing else had any, and the projection counted each once."""

    def all_had() -> bool:
        missing = set(fingerprints) - effects(one).keys()
        assert not missing, f"missing: {sorted(missing)[:10]}"
        return True

    until(all_had)
    counted = one.platform.sql("SELECT coalesce(sum(events), 0) FROM projection")[0][0]
    assert counted == len(effects(one)) == len(set(fingerprints))
