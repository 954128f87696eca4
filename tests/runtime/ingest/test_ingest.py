"""What is acknowledged is stored whole; what is not is refused with its place, and nothing is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from kilo.health import Health
from kilo.ingest.app import make_app
from kilo.ingest.store import EventStore
from tests.events import make_outputs
from tests.runtime.consumer.support import Plain
from tests.runtime.ingest.conftest import stored

GOOD = '{"aggregate": "order", "aggregate_id": "42", "kind": "order.created", "payload": {"total": 12}}'


async def post(
    client: httpx.AsyncClient, body: str | bytes = GOOD, key: str | None = "k1", tenant: str | None = "acme"
) -> httpx.Response:
    headers = {"x-tenant-id": tenant, "idempotency-key": key}
    given = {name: value for name, value in headers.items() if value is not None}
    return await client.post("/v1/events", content=body, headers=given)


def with_payload(text: str) -> str:
    return f'{{"aggregate": "order", "aggregate_id": "1", "kind": "order.created", "payload": {text}}}'


async def test_an_event_is_acknowledged_when_both_rows_are_committed(
    client: httpx.AsyncClient, database_url: str
) -> None:
    answer = await post(client)
    assert (answer.status_code, answer.json()) == (201, {"fingerprint": "acme/k1", "status": "accepted"})
    assert stored(database_url) == (1, 1)


async def test_the_same_key_again_is_200_and_with_other_content_422(
    client: httpx.AsyncClient, database_url: str
) -> None:
    await post(client)
    again = await post(client)
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    other = await post(client, with_payload('{"total": 13}'))
    assert other.status_code == 422
    assert other.json()["errors"][0]["header"] == "Idempotency-Key"
    assert (await post(client, tenant="globex")).status_code == 201
    assert stored(database_url) == (2, 2)


async def test_of_requests_that_race_with_one_key_one_is_new(
    client: httpx.AsyncClient, database_url: str
) -> None:
    answers = await asyncio.gather(*(post(client) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [*[200] * 11, 201]
    assert stored(database_url) == (1, 1)


@pytest.mark.parametrize(
    "payload",
    [
        '{"big": 123456789012345678901234567890123456789, "negative": -9007199254740993}',
        '{"fraction": 0.1234567890123456789012345678901}',
        '{"text": "Zoë 田中 🚚 \\" \\\\ \\n \\u0001", "": ""}',
        '{"nested": {"a": [[], {}, [null, true, {"b": "c"}]]}}',
        json.dumps({"large": "x" * 60_000}),
    ],
)
async def test_payloads_are_stored_as_the_values_they_are(
    client: httpx.AsyncClient, database_url: str, payload: str
) -> None:
    assert (await post(client, with_payload(payload))).status_code == 201
    with psycopg.connect(database_url) as connection:
        query = "SELECT e.payload = %s::jsonb, o.payload = %s::jsonb FROM events e, outbox o"
        assert connection.execute(query, (payload, payload)).fetchone() == (True, True)


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ("not json", 400, "#"),
        ("[]", 400, "#"),
        (b"\xff", 400, "#"),
        (GOOD.replace('"order"', '"Two Words"'), 422, "#/aggregate"),
        (GOOD.replace('"42"', "42"), 422, "#/aggregate_id"),
        (GOOD.replace("order.created", "order created"), 422, "#/kind"),
        (GOOD.replace("aggregate_id", "aggregateId"), 422, "#/aggregate_id"),
        (GOOD.replace('{"total": 12}', "12"), 422, "#/payload"),
        (with_payload('{"a": 1, "a": 2}'), 400, "#/…/a"),
        (with_payload('{"a": {"b": "\\u0000"}}'), 400, "#/payload/a/b"),
        (with_payload('{"a": 1e999}'), 400, "#"),
        (with_payload(json.dumps({"x": "y" * 66_000})), 422, "#/payload"),
        (with_payload(json.dumps({"x": "y" * 80_000})), 413, "#"),
    ],
)
async def test_a_wrong_body_is_refused_with_its_place(
    client: httpx.AsyncClient, database_url: str, body: str | bytes, status: int, place: str
) -> None:
    answer = await post(client, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert place in [error["pointer"] for error in problem["errors"]]
    assert stored(database_url) == (0, 0)


@pytest.mark.parametrize(
    ("key", "tenant", "status", "header"),
    [
        (None, "acme", 400, "Idempotency-Key"),
        ("has space", "acme", 400, "Idempotency-Key"),
        ("x" * 201, "acme", 400, "Idempotency-Key"),
        ("k1", None, 400, "x-tenant-id"),
        ("k1", "nobody", 403, "x-tenant-id"),
    ],
)
async def test_a_wrong_header_is_refused_by_name(
    client: httpx.AsyncClient,
    database_url: str,
    key: str | None,
    tenant: str | None,
    status: int,
    header: str,
) -> None:
    answer = await post(client, key=key, tenant=tenant)
    assert (answer.status_code, answer.json()["errors"][0]["header"]) == (status, header)
    assert stored(database_url) == (0, 0)


@pytest.mark.parametrize(("name", "status"), [("Idempotency-Key", 400), ("x-tenant-id", 403)])
async def test_a_header_that_stands_twice_is_refused(
    client: httpx.AsyncClient, database_url: str, name: str, status: int
) -> None:
    headers = [("x-tenant-id", "acme"), ("Idempotency-Key", "k1"), (name, "globex")]
    answer = await client.post("/v1/events", content=GOOD, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["header"]) == (status, name)
    assert stored(database_url) == (0, 0)


async def test_every_mistake_is_named_at_once(client: httpx.AsyncClient) -> None:
    answer = await post(client, '{"aggregate": "A B", "kind": 3, "more": 1}', key=None)
    places = {error.get("pointer") or error.get("header") for error in answer.json()["errors"]}
    assert places == {"Idempotency-Key", "#/aggregate", "#/aggregate_id", "#/kind", "#/more", "#/payload"}


async def test_a_trace_begins_or_goes_on_with_the_request(
    client: httpx.AsyncClient, database_url: str
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-tenant-id": "acme", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    await client.post("/v1/events", content=GOOD, headers={**headers, "idempotency-key": "a"})
    await client.post("/v1/events", content=GOOD, headers={"x-tenant-id": "acme", "idempotency-key": "b"})
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT split_part(traceparent, '-', 2) FROM outbox ORDER BY id").fetchall()
    assert rows[0] == (trace_id,)
    assert len(rows[1][0]) == 32
    assert rows[1] != rows[0]


async def test_a_database_that_is_away_is_503_and_says_to_try_again() -> None:
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        "postgresql://nobody@127.0.0.1:1/none", min_size=0, max_size=1, timeout=0.3, open=False
    )
    await pool.open()
    app = make_app(make_outputs(), EventStore(pool, Plain()), Health())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingest") as client:
        answer = await post(client)
    await pool.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in answer.text


async def test_other_paths_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/v1/events", 405), ("POST", "/nothing", 404)):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_key_used_again_after_its_window_leaves_the_former_row(
    client: httpx.AsyncClient, database_url: str
) -> None:
    assert (await post(client, with_payload('{"n": 1}'))).status_code == 201
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE events SET received_at = received_at - interval '8 days'")
        connection.execute("DELETE FROM outbox_fingerprints")
        answers = [await post(client, with_payload('{"n": 2}')) for _ in range(2)]
        assert [each.status_code for each in answers] == [201, 200]
        rows = connection.execute("SELECT payload ->> 'n' FROM events ORDER BY received_at").fetchall()
    assert rows == [("1",), ("2",)]
