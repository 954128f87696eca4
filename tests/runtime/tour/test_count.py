"""What counts as altered, and as encrypted."""

from __future__ import annotations

import time

import psycopg
import pytest

from kilo.fle.formats import to_text
from kilo.outbox import strict_json
from kilo.tour.count import count, same, wait_delivered
from kilo.tour.events import Event
from kilo.tour.sender import Answer

FIELDS = frozenset({"email"})
SEALED = to_text(bytes([2, 2]) + bytes(40))


@pytest.mark.parametrize(
    ("sent", "stored", "equal"),
    [
        ('{"a": 1, "b": [1, {"c": null}]}', '{"b": [1, {"c": null}], "a": 1.0}', True),
        ('{"n": 9007199254740993}', '{"n": 9007199254740992}', False),
        ('{"n": 0.1234567890123456789}', '{"n": 0.12345678901234568}', False),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": []}', '{"a": {}}', False),
        ('{"a": null}', "{}", False),
        ('{"in": [{"email": "zoë@example.com"}]}', f'{{"in": [{{"email": "{SEALED}"}}]}}', True),
        ('{"email": "zoë@example.com"}', "{}", False),
        ('{"name": "zoë@example.com"}', f'{{"name": "{SEALED}"}}', False),
    ],
)
def test_payloads_are_the_same_when_they_are_one_json_value(sent: str, stored: str, equal: bool) -> None:
    assert same(strict_json.parse(sent), strict_json.parse(stored), FIELDS) is equal


@pytest.mark.parametrize(
    ("stored", "announced", "encrypted", "plain", "altered"),
    [
        (SEALED, SEALED, 1, 0, 0),
        (SEALED, None, 1, 0, 0),
        ("zoë@example.com", SEALED, 0, 1, 0),
        (SEALED, "zoë@example.com", 0, 1, 0),
        (SEALED, 7, 1, 0, 1),
    ],
)
def test_a_value_lies_encrypted_when_every_copy_of_it_does(
    database_url: str, stored: object, announced: object, encrypted: int, plain: int, altered: int
) -> None:
    with psycopg.connect(database_url) as connection:
        for table, value in (("events", stored), ("outbox", announced)):
            if value is not None:
                payload = strict_json.write({"customer": {"email": value}})
                query = (
                    f"INSERT INTO {table} (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
                    " VALUES ('acme/k', 'acme', 'order', '1', 'order.made', %s::jsonb)"
                )
                connection.execute(query.encode(), (payload,))
    body = '{"payload": {"customer": {"email": "zoë@example.com"}}}'
    answer = Answer(Event("acme", "k", body, "event 1"), fingerprint="acme/k")
    line = count(database_url, [answer], {"acme": ["email"]})["acme"]
    assert (line.encrypted, line.plain) == (
        {"email": encrypted} if encrypted else {},
        {"email": plain} if plain else {},
    )
    assert (line.altered, line.acknowledged, line.lost) == (altered, 1, 1)


def test_arrivals_may_take_longer_than_the_timeout_while_they_go_on(database_url: str) -> None:
    answers = [
        Answer(Event("acme", f"k-{n}", '{"payload": {}}', f"event {n}"), fingerprint=f"acme/k-{n}")
        for n in range(6)
    ]
    arrived: list[int] = []

    def one_more(number: int) -> None:
        arrived.append(number)
        if number < len(answers):
            time.sleep(0.5)
            with psycopg.connect(database_url) as connection:
                connection.execute(
                    "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
                    " VALUES ('projection', %s, now(), 'acme', 'worker')",
                    (f"acme/k-{number}",),
                )

    wait_delivered(database_url, answers, timeout_seconds=2, progress=one_more)
    assert arrived == [0, 1, 2, 3, 4, 5, 6]


def test_events_that_share_a_key_are_waited_for_once(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
            " VALUES ('projection', 'acme/k', now(), 'acme', 'worker')"
        )
    arrived: list[int] = []
    answer = Answer(Event("acme", "k", '{"payload": {}}', "event 1"), fingerprint="acme/k")
    wait_delivered(database_url, [answer, answer], timeout_seconds=60, progress=arrived.append)
    assert arrived == [1]
