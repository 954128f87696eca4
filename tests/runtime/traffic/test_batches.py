"""The largest batches go through a real gateway, and it tries them again as it does single events."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import psycopg

from kilo.client import EventClient, NewEvent
from kilo.ingest.limits import BATCH_BYTES
from kilo.traffic.settings import Upstream
from tests.runtime.ingest.support import serving_ingest
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, make_tenant

MakeGateway = Callable[..., Gateway]
LINES = {"content-type": "application/x-ndjson", "x-tenant-id": "acme"}


def test_batches_of_the_largest_size_reach_ingest_whole(make_gateway: MakeGateway, database_url: str) -> None:
    with serving_ingest(database_url) as port:
        gateway = make_gateway(stable=Upstream(host=ADDRESS, port=port))
        gateway.start([make_tenant("acme"), make_tenant("globex")])
        payload = {"note": "x" * 3_000}
        events = [NewEvent("order", str(n % 7), "order.paid", payload, key=f"k{n}") for n in range(900)]
        for tenant, outcome in (("acme", "accepted"), ("globex", "accepted"), ("acme", "duplicate")):
            with EventClient(gateway.url, tenant) as client:
                assert {sent.status for sent in client.send_many(events)} == {outcome}
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT tenant, count(*) FROM outbox GROUP BY 1 ORDER BY 1").fetchall()
        assert rows == [("acme", 900), ("globex", 900)]
        exact = b"{}" + b" " * (BATCH_BYTES - 2)
        for body, status in ((exact, 200), (exact + b" ", 413)):
            answer = httpx.post(f"{gateway.url}/v1/events:batch", content=body, headers=LINES, timeout=30)
            assert answer.status_code == status, answer.text


def test_a_batch_of_the_largest_size_is_tried_again(
    make_gateway: MakeGateway, stable: UpstreamServer
) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme", retries=1)])
    headers = {**LINES, "idempotency-key": "k", "x-test-failures": "1"}
    body = b" " * BATCH_BYTES
    answer = httpx.post(f"{gateway.url}/v1/events:batch", content=body, headers=headers, timeout=30)
    assert (answer.status_code, stable.tries["k"]) == (200, 2)
