"""Debezium as it is deployed: in its memory, in a new pod, in TLS, and across an upgrade of the table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from kilo.bus import connect
from kilo.cdc.publication import apply_capture
from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.moto import MotoServer
from tests.events import Platform, make_platform
from tests.patience import PATIENCE_SECONDS, until
from tests.runtime.conftest import BusServer
from tests.runtime.database.secured import Secured
from tests.runtime.traffic.certificates import Authority

PAYLOAD_BYTES = 262_144
COUNT = 1_000


INSERT = (
    "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
    " VALUES ('acme', 'payment', '1', 'k', '{{}}', '{0}')"
)


@contextmanager
def on(directory: Path, postgres: PostgresServer, database: str) -> Generator[Platform]:
    nats, moto = NatsServer(directory / "nats"), MotoServer(directory / "moto")
    nats.start()
    moto.start()
    with make_platform(directory, postgres, nats, moto, database) as made:
        yield made
    moto.stop()
    nats.stop()


@pytest.fixture
def platform(tmp_path: Path, postgres: PostgresServer, empty_database_url: str) -> Iterator[Platform]:
    with on(tmp_path, postgres, empty_database_url.rpartition("/")[2]) as made:
        yield made


def stored(platform: Platform) -> int:
    async def last() -> int:
        bus = await connect(platform.bus.url)
        try:
            return await bus.last_position("EVENTS")
        finally:
            await bus.close()

    return asyncio.run(last())


def wait_for(platform: Platform, count: int) -> None:
    for _ in range(600):
        assert platform.debezium
        assert platform.debezium.running
        if stored(platform) >= count:
            return
        time.sleep(0.2)
    msg = f"{stored(platform)} of {count}"
    raise AssertionError(msg)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_the_largest_payloads_pass_in_its_memory(platform: Platform) -> None:
    with psycopg.connect(platform.url) as connection:
        for tenant in ("acme", "globex"):
            connection.execute(
                "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
                " SELECT %s, 'payment', n::text, 'k', jsonb_build_object('x', repeat('a', %s)), n::text"
                " FROM generate_series(1, %s) n",
                (tenant, PAYLOAD_BYTES - len('{"x": ""}'), COUNT // 2),
            )
    platform.start_debezium()
    wait_for(platform, COUNT)


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_new_pod_goes_on_where_the_slot_is(platform: Platform) -> None:
    """The file of offsets goes with its pod; by the slot nothing is left out."""
    platform.start_debezium()
    for times in range(1, 4):
        with psycopg.connect(platform.url, autocommit=True) as connection:
            for n in range(50):
                connection.execute(
                    "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
                    " SELECT 'acme', 'payment', i::text, 'k', '{}', %s || i FROM generate_series(1, 100) i",
                    (f"{times}/{n}/",),
                )
        assert platform.debezium
        platform.debezium.kill()
        (platform.directory / "offsets.dat").unlink(missing_ok=True)
        platform.debezium.start()
        wait_for(platform, times * 5_000)
    found = asyncio.run(BusServer(platform.bus, platform.outputs).all())
    assert len({each.headers["fingerprint"] for each in found}) == 3 * 5_000


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_messages_that_anybody_may_write_to_the_log_are_no_events(platform: Platform) -> None:
    """Every role may, of any size, and the server sends them with the table's rows."""
    platform.start_debezium()
    with psycopg.connect(platform.url, autocommit=True) as connection:
        for text in ("x", "x" * 20_000_000):
            connection.execute("SELECT pg_logical_emit_message(false, 'anybody', %s::text)", (text,))
        connection.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " VALUES ('acme', 'payment', '1', 'k', '{}', 'behind-them')"
        )
    wait_for(platform, 1)
    found = asyncio.run(BusServer(platform.bus, platform.outputs).all())
    assert [each.headers.get("fingerprint") for each in found] == ["behind-them"]


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_rows_from_before_an_upgrade_do_not_stop_it(platform: Platform) -> None:
    """A row in the slot without the columns that the configuration names."""
    with psycopg.connect(platform.url, autocommit=True) as connection:
        newer = ("message_id", "ordering_key", "ce_id", "ce_subject")
        connection.execute("ALTER TABLE outbox DISABLE TRIGGER USER")
        dropped = ", ".join(f"DROP COLUMN {name}" for name in newer)
        connection.execute(f"ALTER TABLE outbox {dropped}".encode())
        connection.execute(
            "INSERT INTO outbox (id, tenant, aggregate, aggregate_id, kind, payload, fingerprint, publisher,"
            " slot, content_digest) VALUES (0, 'acme', 'payment', '1', 'k', '{}', 'former', 'cdc', 0, '')"
        )
        added = ", ".join(f"ADD COLUMN {name} text" for name in newer)
        connection.execute(f"ALTER TABLE outbox {added}".encode())
        connection.execute("ALTER TABLE outbox ENABLE TRIGGER USER")
        connection.execute("UPDATE outbox_capture_from SET position = pg_current_wal_insert_lsn()")
        connection.execute(INSERT.format("present").encode())
        apply_capture(connection, platform.outputs.outbox)
    platform.start_debezium()
    wait_for(platform, 1)
    bus = BusServer(platform.bus, platform.outputs)
    (message,) = asyncio.run(bus.all())
    assert message.headers["fingerprint"] == "present"
    assert message.headers["Nats-Msg-Id"] == "acme/present"


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_it_reads_the_log_of_a_server_that_shows_the_right_certificate_alone(tmp_path: Path) -> None:
    secured = Secured(tmp_path / "secured")
    with psycopg.connect(secured.server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE kilo")
    readers = "SELECT r.pid FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid) WHERE s.ssl"
    try:
        with on(tmp_path, secured.server, "kilo") as platform:
            platform.start_debezium(
                "localhost", {"sslmode": "verify-full", "sslrootcert": str(secured.ca_file)}
            )
            platform.sql(INSERT.format("in-tls"))
            wait_for(platform, 1)
            ((pid,),) = platform.sql(readers)

            secured.certify(Authority())
            secured.reload()
            platform.sql(f"SELECT pg_terminate_backend({pid})")
            platform.sql(INSERT.format("for-another"))
            log = tmp_path / "secured" / "server" / "postgres.log"
            until(lambda: log.read_text().count("alert bad certificate") > 2, "it takes any certificate")
            assert platform.sql(readers) == []
            assert stored(platform) == 1

            secured.certify(secured.authority)
            secured.reload()
            wait_for(platform, 2)
    finally:
        secured.server.stop()
