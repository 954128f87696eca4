"""A batch: a result for each event, all of them or none by choice, and no event hurts another."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest

from tests.runtime.ingest.conftest import stored

LINES, CLOUDEVENTS = "application/x-ndjson", "application/cloudevents-batch+json"


def line(key: str, aggregate_id: str = "1", n: int = 0, **other: Any) -> dict[str, Any]:
    event = {"aggregate": "order", "aggregate_id": aggregate_id, "kind": "order.paid", "payload": {"n": n}}
    return {"key": key, **event, **other}


def cloudevent(own: str, **other: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": own, "source": "/shop", "type": "order.paid", "subject": "order/1"}
    return {**event, "data": {"n": 1}, **other}


async def post(
    client: httpx.AsyncClient, events: list[Any], query: str = "", tenant: str = "acme", media: str = LINES
) -> httpx.Response:
    body = "\n".join(map(json.dumps, events)) if media == LINES else json.dumps(events)
    headers = {"x-tenant-id": tenant, "content-type": media}
    return await client.post(f"/v1/events:batch{query}", content=body, headers=headers)


def statuses(answer: httpx.Response) -> list[str]:
    return [result["status"] for result in answer.json()["results"]]


@pytest.mark.parametrize("media", [LINES, CLOUDEVENTS])
async def test_every_event_is_stored_once_and_in_order(
    client: httpx.AsyncClient, database_url: str, media: str
) -> None:
    make = line if media == LINES else cloudevent
    events = [make(f"k{n}") for n in range(300)]
    for expected in ("accepted", "duplicate"):
        answer = await post(client, events, media=media)
        assert answer.status_code == 200
        assert answer.json()[expected] == 300
        assert set(statuses(answer)) == {expected}
    assert stored(database_url) == (300, 300)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT fingerprint FROM outbox ORDER BY id").fetchall()
    prefix = "acme/" if media == LINES else "acme//shop|"
    assert [row[0] for row in rows] == [f"{prefix}k{n}" for n in range(300)]


async def test_each_event_has_its_own_result(client: httpx.AsyncClient, database_url: str) -> None:
    await post(client, [line("old", n=1), line("same", n=1)])
    answer = await post(
        client,
        [
            line("new"),
            line("old", n=2),
            line("same", n=1),
            line("bad key"),
            line("k", kind="Not A Kind"),
            line("twice", n=1),
            line("twice", n=1),
            line("twice", n=2),
            [],
        ],
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert statuses(answer) == (
        ["accepted", "failed", "duplicate", "failed", "failed", "accepted", "duplicate", "failed", "failed"]
    )
    places = [result["problem"]["errors"][0]["pointer"] for result in results if "problem" in result]
    assert places == ["#/1/key", "#/3/key", "#/4/kind", "#/7/key", "#/8"]
    assert [result["problem"]["status"] for result in results if "problem" in result] == [
        422,
        400,
        422,
        422,
        400,
    ]
    assert stored(database_url) == (4, 4)


async def test_all_or_nothing_by_choice(client: httpx.AsyncClient, database_url: str) -> None:
    await post(client, [line("old", n=1)])
    good = [line("a"), line("old", n=1)]
    for bad in (line("old", n=2), line("k", kind="Not A Kind"), line("a", n=9)):
        answer = await post(client, [good[0], bad], "?atomic=true")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        problems = [result["problem"]["status"] for result in answer.json()["results"]]
        assert problems == [424, 422]
        assert stored(database_url) == (1, 1)
    answer = await post(client, good, "?atomic=true")
    assert (answer.status_code, statuses(answer)) == (200, ["accepted", "duplicate"])
    assert stored(database_url) == (2, 2)


async def test_a_key_is_the_tenants_own(client: httpx.AsyncClient, database_url: str) -> None:
    for tenant in ("acme", "globex"):
        assert statuses(await post(client, [line("k", n=len(tenant))], tenant=tenant)) == ["accepted"]
    assert stored(database_url) == (2, 2)


async def test_a_lock_of_somebody_else_holds_its_own_aggregate_alone(
    client: httpx.AsyncClient, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute(
            "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint)"
            " VALUES ('acme', 'order', '7', 'order.paid', '{}', 'acme/other')"
        )
        events = [line(f"k{n}", aggregate_id=str(n % 10)) for n in range(40)]
        answer = await post(client, events)
        assert [result["index"] for result in answer.json()["results"] if result["status"] == "failed"] == [
            7, 17, 27, 37
        ]  # fmt: skip
        problem = answer.json()["results"][7]["problem"]
        assert (problem["status"], "another transaction" in problem["detail"]) == (503, True)
        atomic = await post(client, [line("x", aggregate_id="7"), line("y")], "?atomic=true")
        assert (atomic.status_code, atomic.headers["retry-after"]) == (503, "1")
    answer = await post(client, events)
    assert answer.json()["accepted"] == 4
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT fingerprint FROM outbox WHERE aggregate_id = '7' ORDER BY id"
        ).fetchall()
    assert [row[0] for row in rows] == ["acme/other", "acme/k7", "acme/k17", "acme/k27", "acme/k37"]


async def test_no_transaction_takes_the_locks_of_more_than_250_events(
    client: httpx.AsyncClient, database_url: str
) -> None:
    answer = await post(client, [line(f"k{n}", str(n)) for n in range(600)])
    assert answer.json()["accepted"] == 600
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT count(*) FROM outbox GROUP BY xmin::text").fetchall()
    assert sorted(row[0] for row in rows) == [100, 250, 250]
    for count, status in ((250, 200), (251, 413)):
        atomic = await post(client, [line(f"a{n}") for n in range(count)], "?atomic=true")
        assert atomic.status_code == status


async def test_single_events_that_arrive_together_are_committed_together(
    client: httpx.AsyncClient, database_url: str
) -> None:
    async def one(n: int) -> int:
        headers = {"x-tenant-id": "acme", "idempotency-key": f"k{n}"}
        body = json.dumps({name: value for name, value in line("", str(n)).items() if name != "key"})
        return (await client.post("/v1/events", content=body, headers=headers)).status_code

    assert await asyncio.gather(*map(one, range(200))) == [201] * 200
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*), count(DISTINCT xmin::text) FROM outbox").fetchone()
    assert row
    assert (row[0], row[1] < 50) == (200, True)


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("application/json", b"[]", 415),
        (LINES, b"", 400),
        (LINES, b"\n \n", 400),
        (LINES, b"{}\n" * 1001, 413),
        (LINES, b"x" * 1_048_577, 413),
        (CLOUDEVENTS, b"[]", 400),
        (CLOUDEVENTS, b"{}", 400),
        (CLOUDEVENTS, b"[", 400),
        (CLOUDEVENTS, b"[" + b"{}," * 1000 + b"{}]", 413),
    ],
)
async def test_what_is_no_batch_is_refused_whole(
    client: httpx.AsyncClient, media: str, body: bytes, status: int
) -> None:
    headers = {"x-tenant-id": "acme", "content-type": media}
    answer = await client.post("/v1/events:batch", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"source": ""}, "source"),
        ({"source": "a|b"}, "source"),
        ({"id": "x" * 199}, "id"),
        ({"id": 1}, "id"),
        ({"type": "Not A Kind"}, "type"),
        ({"subject": "order"}, "subject"),
        ({"subject": "Order/1"}, "subject"),
        ({"subject": "order/a b"}, "subject"),
        ({"data": 1}, "data"),
        ({"data_base64": "eA=="}, "data_base64"),
        ({"datacontenttype": "text/xml"}, "datacontenttype"),
        ({"time": 1}, "time"),
    ],
)
async def test_a_wrong_cloudevent_is_refused_with_its_own_names(
    client: httpx.AsyncClient, database_url: str, change: dict[str, Any], place: str
) -> None:
    answer = await post(client, [cloudevent("1", **change), cloudevent("2")], media=CLOUDEVENTS)
    wrong, right = answer.json()["results"]
    assert [error["pointer"] for error in wrong["problem"]["errors"]] == [f"#/0/{place}"]
    assert right["status"] == "accepted"
    assert stored(database_url) == (1, 1)


async def test_an_events_own_trace_goes_on(client: httpx.AsyncClient, database_url: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    own = f"00-{trace_id}-b7ad6b7169203331-01"
    await post(client, [line("a", traceparent=own), line("b", traceparent="nonsense"), line("c")])
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT split_part(traceparent, '-', 2) FROM outbox ORDER BY id").fetchall()
    assert rows[0] == (trace_id,)
    assert rows[1] == rows[2] != rows[0]
