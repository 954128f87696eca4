"""A folder of schemas: what is none is refused with its place, and payloads are held to it."""

from __future__ import annotations

import asyncio
import copy
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kilo.bus import Bus
from kilo.consumer import Connections, Consumer
from kilo.consumer.event import Unreadable, check_schema
from kilo.errors import BadInput
from kilo.outbox import Event, enqueue, strict_json
from kilo.schemas import EventSchemas, load_folder
from kilo.schemas.asyncapi import render_asyncapi
from kilo.schemas.folder import parse_folder
from tests.runtime.consumer.support import Plain

ROOT = Path(__file__).parents[3]
PAID: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "description": "An order was paid.",
    "x-aggregate": "order",
    "type": "object",
    "required": ["amount"],
    "properties": {
        "amount": {"type": "integer", "minimum": 0, "multipleOf": 5},
        "rate": {"type": "number", "multipleOf": 0.1, "maximum": 0.5},
        "state": {"enum": ["paid", "due"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
    "examples": [{"amount": 5}],
}


def parsed(**files: object) -> EventSchemas:
    return parse_folder("events", {f"{name}.json": json.dumps(document) for name, document in files.items()})


def changed(**by: object) -> dict[str, Any]:
    found = {**copy.deepcopy(PAID), **by}
    return {name: value for name, value in found.items() if value is not None}


def folder(directory: Path, **files: object) -> Path:
    directory.mkdir(exist_ok=True)
    for name, document in files.items():
        (directory / f"{name}.json").write_text(json.dumps(document))
    return directory


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "paid.json: not a JSON object"),
        (changed(**{"$schema": "http://json-schema.org/draft-07/schema#"}), r"/\$schema is to be https"),
        (changed(**{"x-aggregate": None}), "/x-aggregate is to name the aggregate"),
        (changed(**{"x-aggregate": "Order Lines"}), "/x-aggregate is to name the aggregate"),
        (changed(**{"x-role": "both"}), "/x-role is to be produced or consumed"),
        (changed(type="array"), "/type is to be object"),
        (changed(description=None), "/description is to say what happened"),
        (changed(examples=None), "/examples is to have a payload"),
        (changed(examples=[{"amount": -5}]), "/examples/0 is none: /amount: is to have minimum 0"),
        (changed(additionalProperties=False), "closed, so that no property can be added"),
        (
            changed(properties={"a": {"$ref": "https://example.com/a.json"}}),
            r"/properties/a/\$ref is to be #",
        ),
        (changed(properties={"a": {"$ref": "#/$defs/none"}}), r"/properties/a/\$ref is to be #"),
        (changed(properties={"a": {"$id": "https://example.com/"}}), r"/properties/a/\$id: leave it out"),
        (changed(properties={"a": {"type": "strnig"}}), "/properties/a/type: 'strnig'"),
        (changed(properties={"a": {"pattern": "("}}), "/properties/a/pattern"),
        (
            changed(properties={"a": {"pattern": "(?=a)b"}}),
            r"/properties/a/pattern: \(\?=: without look-around",
        ),
        (
            changed(properties={"a": {"pattern": r"(a)\1"}}),
            r"/properties/a/pattern: \\1: without look-around",
        ),
        (
            changed(patternProperties={"(a{100}){100}": {}}),
            r"/patternProperties/\(a\{100\}\)\{100\}: \{100\}: repeats at most 1,000 times",
        ),
        (
            changed(patternProperties={"^x": {}}, allOf=[{"unevaluatedProperties": {"type": "string"}}]),
            "/allOf/0/unevaluatedProperties: not in a file with patternProperties",
        ),
        (changed(properties=[]), "/properties: "),
        (changed(properties={"a": {"$ref": ["#/$defs/line"]}}), r"/properties/a/\$ref is to be #"),
        # A reference is a URI: this one would lead to the part "a b".
        (
            changed(properties={"a": {"$ref": "#/$defs/a%20b"}}, **{"$defs": {"a%20b": {}}}),
            r"/properties/a/\$ref is to be #",
        ),
        (changed(**{"x-role": ["produced"]}), "/x-role is to be produced or consumed"),
        (
            changed(**{"$defs": {"line": {"$ref": "#/$defs/line"}}}),
            "/\\$defs/line: refers to itself without an end",
        ),
        (
            changed(
                **{
                    "$defs": {
                        "line": {"allOf": [{"$ref": "#/$defs/b"}]},
                        "b": {"not": {"$ref": "#/$defs/line"}},
                    }
                }
            ),
            "/\\$defs/line: refers to itself without an end",
        ),
        (changed(description="\ud800"), "/description: holds half a surrogate pair"),
    ],
)
def test_what_is_no_schema_of_an_event_is_refused_with_its_place(document: object, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        parsed(paid=document)
    assert str(caught.value).startswith("events/paid.json: ")


def test_all_that_are_wrong_are_named_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        parse_folder("events", {"Paid.json": "{}", "due.json": "{", "paid.json": json.dumps(PAID)})
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
        "events/Paid.json",
        "events/due.json",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(PAID)[:-1] + ', "type": "object"}', "the key 'type' stands twice in one object"),
        (json.dumps(changed(minimum=float("nan"))), "NaN is not JSON"),
        (json.dumps(PAID)[:-1] + ', "minimum": 1e399}', r"1E\+399: no double holds this number"),
        (json.dumps(PAID)[:-1] + ', "minimum": 0.12345678901234567890}', "no double holds this number"),
        (json.dumps(PAID)[:-1] + f', "minimum": {"9" * 5_000}}}', "more than 400 digits"),
        ("[" * 100_000, "nested deeper than 100"),
        ("\ufeff" + json.dumps(PAID), "not JSON"),
    ],
)
def test_a_text_that_would_be_read_in_two_ways_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        parse_folder("events", {"paid.json": text})
    assert str(caught.value).startswith("events/paid.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["pipe", "directory", "dangling", "loop"])
def test_what_is_no_file_is_said_and_not_waited_for(what: str, tmp_path: Path) -> None:
    path = tmp_path / "paid.json"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if what == "dangling" else path.name)
    with pytest.raises(BadInput, match=r"paid\.json: (not a file|can't be read \()"):
        load_folder(tmp_path)


def test_recursive_schemas_are_held_to_as_deep_as_the_stack_goes() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#/$defs/tree"}}}
    schemas = parsed(paid=changed(**{"$defs": {"tree": tree}, "properties": {"a": {"$ref": "#/$defs/tree"}}}))
    assert schemas["paid"].problem({"amount": 5, "a": {"child": {"child": 1}}}) == (
        '/a/child/child: is to have type "object"'
    )
    deep: dict[str, Any] = {}
    for _ in range(2_000):
        deep = {"child": deep}
    assert schemas["paid"].problem({"amount": 5, "a": deep}) == (
        ": is nested deeper than it can be held to its schema"
    )


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ('{"amount": 5, "other": true}', None),
        ('{"amount": 5.0}', None),
        ('{"amount": 123456789012345678901234567890}', None),
        ('{"amount": 5, "rate": 0.3}', None),
        ('{"amount": 5, "rate": 0.35}', "/rate: is to have multipleOf"),
        ('{"amount": 5, "rate": 1e390}', ": a number is beyond"),
        ('{"amount": 7}', "/amount: is to have multipleOf 5"),
        ('{"amount": 5.5}', '/amount: is to have type "integer"'),
        ('{"amount": true}', '/amount: is to have type "integer"'),
        ("{}", ": lacks amount"),
        ('{"amount": 5, "lines": [{"sku": "a"}, {}]}', "/lines/1: lacks sku"),
        ('{"amount": 5, "state": "ana@example.com"}', '/state: is to have enum ["paid", "due"]'),
        ("[]", ': is to have type "object"'),
    ],
)
def test_a_payload_is_held_to_its_schema_and_no_value_is_quoted(payload: str, problem: str | None) -> None:
    found = parsed(paid=PAID)["paid"].problem(strict_json.parse(payload))
    assert found is None if problem is None else str(found).startswith(problem)
    assert "ana@" not in str(found)


class TestWriters:
    def test_an_event_is_written_as_its_schema_says_or_not_at_all(
        self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = changed(**{"x-role": "consumed"})
        place = folder(tmp_path / "events", **{"order.paid": PAID, "order.due": others})
        monkeypatch.setenv("KILO_EVENT_SCHEMAS", str(place))
        refused = [
            (
                Event("acme", "order", "1", "order.paid", {"amount": "ana"}),
                'payload/amount: is to have type "int',
            ),
            (
                Event("acme", "order", "1", "order.paid", '{"amount": 0.5}'),
                'payload/amount: is to have type "int',
            ),
            (Event("acme", "item", "1", "order.paid", {"amount": 5}), "aggregate item: .* says order"),
            (Event("acme", "order", "1", "order.gone", {}), "kind order.gone: .* has no order.gone.json"),
        ]
        with psycopg.connect(database_url) as connection:
            for event, reason in refused:
                with pytest.raises(BadInput, match=reason):
                    enqueue(connection, event)
            enqueue(connection, Event("acme", "order", "1", "order.paid", {"amount": 5, "rate": 0.1}))
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)

    def test_a_folder_that_is_not_there_is_said(
        self, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KILO_EVENT_SCHEMAS", str(tmp_path / "none"))
        with (
            psycopg.connect(database_url) as connection,
            pytest.raises(BadInput, match="none: no such directory"),
        ):
            enqueue(connection, Event("acme", "order", "1", "order.paid", {}))


def test_a_consumer_takes_no_event_that_is_not_as_its_schema_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILO_EVENT_SCHEMAS", str(folder(tmp_path / "events", **{"order.paid": PAID})))
    check_schema("order.paid", {"amount": 5, "rate": Decimal("0.1")})
    check_schema("order.unknown", {"amount": -1})
    with pytest.raises(Unreadable, match=r"payload/amount: is to have minimum 0 \(.*order.paid.json\)"):
        check_schema("order.paid", {"amount": -5})


async def test_a_consumer_without_the_schemas_that_it_was_given_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would park every event for a mistake of its own."""
    monkeypatch.setenv("KILO_EVENT_SCHEMAS", str(tmp_path / "none"))

    async def nobody() -> Bus:
        raise AssertionError

    with pytest.raises(BadInput, match="none: no such directory"):
        await Consumer("billing").run(Connections("nobody", nobody, "EVENTS", Plain()), asyncio.Event())


def test_the_asyncapi_document_names_channels_messages_and_who_sends() -> None:
    made = render_asyncapi(
        parsed(
            **{"order.paid": PAID, "item.changed": changed(**{"x-aggregate": "item", "x-role": "consumed"})}
        ),
        "shop",
        "1.2.0",
    )
    assert made["asyncapi"] == "3.0.0"
    assert {name: each["address"] for name, each in made["channels"].items()} == {
        "item": "events.item",
        "order": "events.order",
    }
    assert {name: each["action"] for name, each in made["operations"].items()} == {
        "receive-item": "receive",
        "send-order": "send",
    }
    assert made["components"]["messages"]["order.paid"]["payload"]["schema"]["required"] == ["amount"]
    references = [each for each in _references(made) if not each.startswith("#/$defs/")]
    for reference in references:
        node: Any = made
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [each for value in node.values() for each in _references(value)]
    return [each for value in node for each in _references(value)] if isinstance(node, list) else []


def test_the_tours_events_are_as_the_repositorys_schemas_say() -> None:
    from kilo.tour.events import make_events

    schemas = load_folder(ROOT / "events")
    kinds: set[str] = set()
    for event in make_events(["acme"], 60):
        body = strict_json.parse(event.body)
        schemas.check_written(body["kind"], body["aggregate"], body["payload"])
        kinds.add(body["kind"])
    assert kinds == set(schemas)
