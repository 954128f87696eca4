"""What processes log: declared fields alone, the work it belongs to, and no credential."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from kilo.observe.logs import FIELDS, LONGEST, JsonLines, Lines, around, without_credentials
from kilo.observe.spans import span

CANARIES = [
    "postgresql://ingest:c4n4ry@db.example:5432/kilo",
    "postgresql://ingest:c4n4/ry@x@db.example/kilo",
    "Authorization: Bearer c4n4ryc4n4ry.c4n4ry",
    "password=c4n4ry",
    'failed: {"api_key": "c4n4ry", "a": 1}',
    "https://queue.example/?token=c4n4ry&x=1",
    "-----BEGIN PRIVATE KEY-----\nc4n4ry\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\nc4n4ry, cut",
]


def record(message: str, *arguments: object, error: bool = False, **more: object) -> logging.LogRecord:
    info = sys.exc_info() if error else None
    made = logging.LogRecord("kilo.test", logging.WARNING, __file__, 1, message, arguments, info)
    made.__dict__.update(more)
    return made


@pytest.fixture
def nothing_around() -> Iterator[None]:
    token = around.set({})
    yield
    around.reset(token)


def test_a_line_has_the_declared_fields_and_no_others() -> None:
    line = JsonLines().format(record("stored %d\nrows", 3, customer="Ada", tenant="forged"))
    fields = json.loads(line)
    assert fields["message"] == "stored 3\nrows"
    assert "\n" not in line
    assert set(fields) == {"time", "level", "logger", "message"}
    assert set(fields) <= set(FIELDS)
    assert "Ada" not in line


def test_a_line_says_which_work_it_belongs_to() -> None:
    attributes = {"kilo.tenant": "acme", "kilo.fingerprint": "acme/k", "kilo.other": "x"}
    with span("POST /v1/events", None, attributes=attributes) as traceparent:
        fields = json.loads(JsonLines().format(record("stored")))
    assert fields["trace_id"] == traceparent.split("-")[1]
    assert (fields["tenant"], fields["fingerprint"]) == ("acme", "acme/k")
    assert "trace_id" not in json.loads(JsonLines().format(record("after")))


@pytest.mark.parametrize("canary", CANARIES)
def test_no_planted_credential_is_logged(canary: str) -> None:
    try:
        raise ValueError(canary)  # noqa: TRY301
    except ValueError:
        planted = record("it failed: %s", canary, error=True)
    for formatter in (JsonLines(), Lines()):
        assert "c4n4" not in formatter.format(planted)


def test_what_is_no_credential_stays() -> None:
    text = "GET https://registry.example/v2/app 401, token of 12 characters; ada@example.com"
    assert without_credentials(text) == text


@pytest.mark.parametrize("part", ["x", "x://", "://x ", "password ", "password='", "bearer ", "-----BEGIN "])
def test_a_line_is_bounded_and_so_is_the_work_for_it(part: str) -> None:
    # Of a length at which work by its square outlasts any patience.
    line = JsonLines().format(record(part * (100 * LONGEST // len(part))))
    assert len(json.loads(line)["message"]) <= LONGEST
    assert len(line) < 6 * LONGEST + 500
