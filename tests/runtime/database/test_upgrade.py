"""A database with events of the former version, brought to this one: none is lost, doubled or forgotten."""

from __future__ import annotations

import psycopg

from kilo.database import migrate
from kilo.database.migrator import migrations
from kilo.outbox import Event, enqueue
from kilo.outbox.worker import Worker
from tests.runtime.conftest import BusServer

_NEW = (
    "0107",
    "0108",
    "0109",
    "0110",
    "0111",
    "0112",
    "0113",
    "0114",
    "0115",
    "012",
    "0150",
    "019",
    "032",
    "034",
)
EVENT = Event("acme", "order", "42", "order.paid", {"n": 1}, "acme/key")


async def test_events_of_the_former_version_are_known_and_published(
    empty_database_url: str, bus: BusServer
) -> None:
    url = empty_database_url
    migrate(url, files=[each for each in migrations() if not each.name.startswith(_NEW)])
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.transaction():
            enqueue(connection, EVENT)
            enqueue(connection, Event("acme", "order", "42", "order.paid", {"n": 2}, "acme/other"))
            # What the former version let in: an impossible time.
            connection.execute(
                "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint, created_at)"
                " VALUES ('acme', 'order', '7', 'k', '{}', 'acme/odd', 'infinity')"
            )
        former = connection.execute("SELECT count(*) FROM outbox").fetchone()
        assert former == (3,)
        migrate(url)
        migrate(url)
        with connection.transaction():
            assert enqueue(connection, EVENT).duplicate
            assert not enqueue(
                connection, Event("globex", "order", "42", "order.paid", {}, "acme/key")
            ).duplicate
        slots = connection.execute("SELECT DISTINCT slot FROM outbox WHERE aggregate_id = '42'").fetchall()
        # Rows of one ordering key are in one slot, whichever version wrote them; another tenant's in its own.
        assert len(slots) == 2
        assert await Worker(url, bus.connect).drain() == 4
        assert await Worker(url, bus.connect).drain() == 0
    found = [(each.headers["tenant"], each.headers["fingerprint"]) for each in await bus.all()]
    assert sorted(found) == [
        ("acme", "acme/key"), ("acme", "acme/odd"), ("acme", "acme/other"), ("globex", "acme/key")
    ]  # fmt: skip
    assert found.index(("acme", "acme/key")) < found.index(("acme", "acme/other"))
