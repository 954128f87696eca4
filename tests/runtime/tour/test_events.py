"""Events of a tour: made up or read, and every mistake in a file named by its line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kilo.errors import BadInput
from kilo.tour.events import make_events, read_events

LIMIT = 262_144
GOOD = {
    "tenant": "acme",
    "aggregate": "order",
    "aggregate_id": "1",
    "kind": "order.created",
    "payload": {"a": 1},
}


def file_of(path: Path, *lines: str) -> Path:
    file = path / "events.ndjson"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_made_up_events_are_spread_over_tenants_and_never_share_a_key() -> None:
    events = make_events(["acme", "globex"], 80) + make_events(["acme", "globex"], 80)
    assert Counter(event.tenant for event in events) == {"acme": 80, "globex": 80}
    assert len({event.idempotency_key for event in events}) == len(events)


def test_made_up_events_have_what_is_easily_lost() -> None:
    payload = make_events(["acme"], 1)[0].content()["payload"]
    assert payload["ledger_entry"] > 2**53
    assert payload["customer"]["address"]["city"] == "Köln"
    assert payload["coupon"] is None


def test_a_file_keeps_numbers_keys_and_text_as_written(tmp_path: Path) -> None:
    payload = (
        '{"n": 12345678901234567890123, "f": 0.12345678901234567890123, "large": 1E+300, "s": "a\u2028b"}'
    )
    line = json.dumps({**GOOD, "payload": "PAYLOAD", "idempotency_key": "k-1"}).replace('"PAYLOAD"', payload)
    (event,) = read_events(file_of(tmp_path, "", line), LIMIT)
    assert payload in event.body
    assert event.idempotency_key == "k-1"


def test_a_payload_over_the_stages_limit_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    fits = json.dumps({**GOOD, "payload": {"a": "ä" * 46}}, ensure_ascii=False)
    file = file_of(tmp_path, fits, json.dumps({**GOOD, "payload": {"a": "ä" * 47}}))
    size = len('{"a": ""}') + 2 * 46
    with pytest.raises(
        BadInput, match=rf":2: payload: {size + 2} bytes of JSON; the stage takes at most {size}"
    ):
        read_events(file, size)
    assert len(read_events(file, size + 2)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        (json.dumps({**GOOD, "payload": {"a": ["\0"]}}), ":2: payload.a.0: holds U+0000"),
        (json.dumps({**GOOD, "payload": {"n": float("nan")}}), ":2: NaN is not JSON"),
        (json.dumps({**GOOD, "idempotencyKey": "k"}), ":2: idempotencyKey is unknown"),
        (json.dumps({**GOOD, "idempotency_key": 7}), ":2: idempotency_key must be a string, and is 7"),
        ("[]", ":2: must be a JSON object"),
        ('{"tenant": "a", "tenant": "b"}', ":2: ….tenant: the key 'tenant' stands twice"),
        (json.dumps({"tenant": "acme"}), ":2: aggregate, aggregate_id, kind, payload missing"),
        (json.dumps({**GOOD, "tenant": 7}), ":2: tenant must be a string, and is 7"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_events(file_of(tmp_path, json.dumps(GOOD), line), LIMIT)
    assert message in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_event(tmp_path: Path) -> None:
    """As Windows' editors begin a file."""
    file = file_of(tmp_path, json.dumps(GOOD))
    [event] = read_events(file, LIMIT)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert [each.body for each in read_events(file, LIMIT)] == [event.body]


def test_a_file_without_events_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no events"):
        read_events(file_of(tmp_path, "", ""), LIMIT)
    with pytest.raises(BadInput, match="can't be read"):
        read_events(tmp_path / "missing.ndjson", LIMIT)
    (tmp_path / "latin.ndjson").write_bytes(b'{"tenant": "\xfc"}')
    with pytest.raises(BadInput, match="not UTF-8 at byte 12"):
        read_events(tmp_path / "latin.ndjson", LIMIT)
