"""What clients sent is what the tables say, to the request, whatever dies in between; and it names nobody."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections import Counter
from pathlib import Path

import httpx
import psycopg
from psycopg import sql

from kilo.tenancy import RateLimit
from kilo.testing.servers.postgres import PostgresServer
from tests.patience import until
from tests.runtime.traffic.support import UpstreamServer, make_tenant
from tests.runtime.usage.gateways import CollectorProcess, make_gateway, seen_in
from tests.runtime.usage.support import rows, totals

_TENANTS = [
    make_tenant("acme"),
    make_tenant("globex"),
    make_tenant("tiny", limit=RateLimit(requests_per_second=5, burst=5)),
]
_Sent = Counter[tuple[str, str, str]]
"""Requests by tenant, method and class of status, as clients saw them."""


def role_url(database_url: str, role: str) -> str:
    """The URL of ``role``, which is given a password."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD 'secret'").format(sql.Identifier(role)))
    scheme, _, rest = database_url.partition("://")
    return f"{scheme}://{role}:secret@{rest.rpartition('@')[2]}"


async def send(urls: list[str], seed: int, stopping: asyncio.Event, sent: _Sent) -> None:
    chance = random.Random(seed)
    async with httpx.AsyncClient(trust_env=False) as client:
        while not stopping.is_set():
            tenant, method = (
                chance.choice(["acme", "globex", "tiny", "nobody"]),
                chance.choice(["GET", "POST"]),
            )
            answer = await client.request(
                method,
                f"{chance.choice(urls)}/v1/events/{chance.randrange(10**6)}",
                headers={"x-tenant-id": tenant},
                content=b"x" * chance.randrange(100) if method == "POST" else None,
            )
            known = "" if tenant == "nobody" else tenant
            sent[known, method, f"{answer.status_code // 100}xx"] += 1
            await asyncio.sleep(0)


async def test_sums_equal_what_was_sent_through_kills_of_collectors_and_the_database(
    database_url: str, postgres: PostgresServer, tmp_path: Path, stable: UpstreamServer
) -> None:
    gateways = [make_gateway(tmp_path, stable, name) for name in ("one", "two")]
    url = role_url(database_url, "kilo_usage")
    # Small files, so that rotations come between kills.
    collectors = [
        CollectorProcess(gateway, url, f"gateway-{number}", rotate_bytes=20_000)
        for number, gateway in enumerate(gateways)
    ]
    sent: _Sent = Counter()
    stopping = asyncio.Event()
    chance = random.Random(5503)
    try:
        for gateway, collector in zip(gateways, collectors, strict=True):
            gateway.start(_TENANTS)
            collector.start()
        clients = [
            asyncio.ensure_future(send([each.url for each in gateways], seed, stopping, sent))
            for seed in range(4)
        ]
        for kill in range(10):
            # Some die while they start, some within their work, some while they rotate.
            await asyncio.sleep(chance.uniform(0.1, 2.5))
            collector = collectors[kill % 2]
            collector.kill()
            if kill % 4 == 1:
                with psycopg.connect(postgres.url, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'kilo-usage-collect'"
                    )
            collector.start()

        # A busy machine sends little while ten are killed.
        def shed_and_rotated() -> bool:
            files = rows(database_url, "SELECT count(DISTINCT file) FROM usage_files")
            return sent["tiny", "GET", "4xx"] > 0 and files[0][0] > 2

        await asyncio.to_thread(until, shed_and_rotated, "shed and rotated")
        stopping.set()
        await asyncio.gather(*clients)
        for collector in collectors:
            await asyncio.to_thread(collector.ready)
        written = sum(sent.values())
        await asyncio.to_thread(
            until, lambda: sum(totals(database_url).values()) == written, f"{written} requests"
        )
        for gateway, collector in zip(gateways, collectors, strict=True):
            gateway.stop()
            assert await asyncio.to_thread(collector.stop) == 0
    finally:
        for gateway, collector in zip(gateways, collectors, strict=True):
            gateway.stop()
            collector.kill()
    found = rows(
        database_url, "SELECT tenant, method, status, sum(requests)::int FROM usage_requests GROUP BY 1, 2, 3"
    )
    assert {(tenant, method, status): count for tenant, method, status, count in found} == dict(sent)
    assert sent["tiny", "GET", "4xx"] > 0
    shed = rows(database_url, "SELECT DISTINCT tenant, status FROM usage_requests WHERE shed <> ''")
    assert shed == [("tiny", "4xx")]
    assert rows(database_url, "SELECT count(DISTINCT file) > 2, count(DISTINCT source) FROM usage_files") == [
        (True, 2)
    ]
    # What is read is gone from the disk but the file that is written.
    assert all(len(list(each.file.parent.glob("usage.log*"))) <= 2 for each in collectors)


def test_a_frozen_collector_holds_nobody_up_and_adds_nothing_twice(
    database_url: str, tmp_path: Path, stable: UpstreamServer
) -> None:
    gateway = make_gateway(tmp_path, stable, "one")
    url = role_url(database_url, "kilo_usage")
    first, second = (CollectorProcess(gateway, url, "gateway-0", rotate_bytes=10**8) for _ in range(2))
    try:
        gateway.start(_TENANTS)
        first.start()
        first.ready()
        headers = {"x-tenant-id": "acme"}
        assert first._process is not None  # pyright: ignore[reportPrivateUsage]
        for number in range(30):
            httpx.get(f"{gateway.url}/v1/x", headers=headers)
            if number == 15:
                first._process.send_signal(signal.SIGSTOP)  # pyright: ignore[reportPrivateUsage]
                second.start()
        until(lambda: totals(database_url) == {"acme": 30})
        first._process.send_signal(signal.SIGCONT)  # pyright: ignore[reportPrivateUsage]
        httpx.get(f"{gateway.url}/v1/x", headers=headers)
        until(lambda: totals(database_url) == {"acme": 31})
        assert first.stop() == second.stop() == 0
        assert totals(database_url) == {"acme": 31}
    finally:
        gateway.stop()
        first.kill()
        second.kill()


_CANARIES = [
    "Canary.Person",
    "canary%2Eperson",
    "canary@example.com",
    "tok_canary_5503",
    "Canaria",
    "555-0134",
]


def test_names_addresses_and_tokens_are_in_no_file_and_no_table(
    database_url: str, tmp_path: Path, stable: UpstreamServer
) -> None:
    gateway = make_gateway(tmp_path, stable, "one")
    collector = CollectorProcess(
        gateway, role_url(database_url, "kilo_usage"), "gateway-0", rotate_bytes=10**8
    )
    try:
        gateway.start(_TENANTS)
        collector.start()
        with httpx.Client(base_url=gateway.url) as client:
            for word in _CANARIES:
                planted = {
                    "x-tenant-id": "acme",
                    "authorization": f"Bearer {word}",
                    "cookie": f"session={word}",
                    "user-agent": word,
                    "referer": f"https://x/{word}",
                    "idempotency-key": word,
                    "x-request-id": word,
                    "x-forwarded-for": word,
                    "traceparent": word,
                    "x-kilo-version": word,
                }
                client.post(f"/v1/people/{word}", params={"q": word}, headers=planted, content=word.encode())
                client.get(f"/{word}?{word}={word}", headers={**planted, "x-tenant-id": word})
                client.get(f"/v1/{word}", headers={**planted, "host": word.replace("%", "").replace("@", "")})
        with httpx.Client(base_url=gateway.url, http1=True) as client:
            client.request("PATCH", "/v1/x", headers={"x-tenant-id": "acme", "tok_canary_5503": "1"})
        until(lambda: sum(totals(database_url).values()) == 3 * len(_CANARIES) + 1)
        assert collector.stop() == 0
    finally:
        gateway.stop()
        collector.kill()
    assert collector.file.read_bytes().count(b"\n") == 3 * len(_CANARIES) + 1
    # The usage file and the collector's own log; the gateway's log for operators has its own rules.
    assert seen_in(collector.file.parent, _CANARIES, but=lambda path: path.name == "access.log") == []
    for table in ("usage_requests", "usage_request_days", "usage_files"):
        text = str(rows(database_url, f"SELECT * FROM {table}")).lower()
        assert [word for word in _CANARIES if word.lower() in text] == []


def test_a_method_that_names_somebody_is_none(
    database_url: str, tmp_path: Path, stable: UpstreamServer
) -> None:
    """HTTP/2 takes any word for a method."""
    gateway = make_gateway(tmp_path, stable, "one")
    try:
        gateway.start(_TENANTS)
        frames = (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
            + _headers_frame(
                [(":method", "CANARIA"), (":scheme", "http"), (":path", "/v1/x"), (":authority", "a"),
                 ("x-tenant-id", "acme")]
            )
        )  # fmt: skip
        file = Path(gateway.settings.usage_log or "")
        with socket.create_connection(("127.0.0.1", gateway.settings.listener_port)) as client:
            client.sendall(frames)
            until(lambda: file.exists() and file.read_bytes().endswith(b"\n"))
        text = file.read_text()
        assert '"method":"other"' in text or '"method":null' in text
        assert "CANARIA" not in text
    finally:
        gateway.stop()


def _headers_frame(headers: list[tuple[str, str]]) -> bytes:
    """HPACK without table or Huffman (RFC 7541, 6.2.2), in one HEADERS frame that ends the stream."""
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers
    )
    return len(block).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + block
