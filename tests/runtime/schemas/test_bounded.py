"""The work on one payload has an end: whatever a schema says, and whatever a payload holds."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from kilo.outbox import strict_json
from kilo.outbox.reader import LARGEST_PAYLOAD_BYTES
from kilo.schemas.folder import EventSchema, parse_folder

SPENT = ": takes more steps to hold to its schema than an event is given"


def schema(**rules: Any) -> EventSchema:
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "An order was paid.",
        "x-aggregate": "order",
        "type": "object",
        "examples": [{}],
        **rules,
    }
    return parse_folder("events", {"paid.json": json.dumps(document)})["paid"]


def of_text(pattern: str) -> EventSchema:
    return schema(properties={"a": {"pattern": pattern}})


# Each takes Python's own engine longer than the universe is old.
CATASTROPHES = [
    ("^(a+)+$", "a" * 100_000 + "!"),
    ("^(a|a)*$", "a" * 100_000 + "!"),
    (r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}", "a" * 100_000 + "!"),
    ("(x+x+)+y", "x" * 100_000),
    (r"^(\d+|\w+)*$", "1" * 100_000 + "!"),
]


@pytest.mark.parametrize(("pattern", "text"), CATASTROPHES)
@pytest.mark.parametrize("place", ["pattern", "patternProperties", "additionalProperties", "propertyNames"])
@pytest.mark.timeout(60)
def test_a_pattern_that_would_backtrack_without_end_is_matched(pattern: str, text: str, place: str) -> None:
    if place == "pattern":
        assert of_text(pattern).problem({"a": text}) == f"/a: is to have pattern {json.dumps(pattern)}"
    elif place == "propertyNames":
        held = schema(propertyNames={"pattern": pattern})
        assert held.problem({text: 1}) == f": is to have pattern {json.dumps(pattern)}"
    else:
        held = schema(patternProperties={pattern: False}, additionalProperties={"type": "string"})
        # Of other names the second rule speaks, whether or not patterns were asked.
        assert held.problem({text: 1}) == f'/{text}: is to have type "string"'


def test_pythons_own_engine_does_not_come_back_from_them() -> None:
    """What the others are measured against: with it, this file would hang."""
    pattern, text = CATASTROPHES[0]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-c", f"import re; re.search({pattern!r}, {text[-40:]!r})"],
            check=True,
            timeout=3,
        )


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("pattern", "unit"),
    [("(?:a|b)*a(?:a|b){500}c", "abbab"), ("(a?){900}c", "a"), (r"(.*a.*b){300}c", "abbab")],
)
def test_a_large_pattern_over_a_large_text_is_refused_before_it_is_matched(pattern: str, unit: str) -> None:
    held = of_text(pattern)
    assert held.problem({"a": unit * 10}) is not None
    assert held.problem({"a": unit * (LARGEST_PAYLOAD_BYTES // len(unit))}) == SPENT


@pytest.mark.timeout(120)
def test_a_part_that_asks_the_same_twice_at_every_depth_ends() -> None:
    both = [{"properties": {"child": {"$ref": "#/$defs/tree"}, name: {"type": "object"}}} for name in "ab"]
    held = schema(properties={"a": {"$ref": "#/$defs/tree"}}, **{"$defs": {"tree": {"allOf": both}}})
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"child": deep}
    assert held.problem({"a": {"child": {"b": 1}}}) == '/a/child/b: is to have type "object"'
    assert held.problem({"a": deep}) == SPENT


@pytest.mark.timeout(120)
def test_many_unlike_items_are_compared_once() -> None:
    held = schema(properties={"a": {"type": "array", "uniqueItems": True}})
    items: list[Any] = [{"n": number} for number in range(80_000)]
    assert held.problem({"a": items}) is None
    assert held.problem({"a": [*items, {"n": 79_999}]}) == "/a: is to have uniqueItems true"


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ('[1, true, 0, false, null, "1"]', True),
        ('[[1], [true], {"a": 1}, {"a": true}]', True),
        ("[1, 1.0]", False),
        ("[0.1, 1e-1]", False),
        ("[[1, [2.0]], [1, [2]]]", False),
        ('[{"a": 1, "b": [0]}, {"b": [0.0], "a": 1.00}]', False),
        ('["array", ["array"], [["array"]], {}, []]', True),
    ],
)
def test_items_are_the_same_as_json_has_it(items: str, unique: bool) -> None:
    held = schema(properties={"a": {"uniqueItems": True}})
    assert (held.problem(strict_json.parse(f'{{"a": {items}}}')) is None) is unique


@pytest.mark.timeout(120)
def test_the_largest_payload_of_the_smallest_items_is_held_to_ordinary_rules() -> None:
    line = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0}}}
    held = schema(
        properties={"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}},
        **{"$defs": {"line": line}},
    )
    lines: list[Any] = [{"a": 1}] * (LARGEST_PAYLOAD_BYTES // len('{"a":1},'))
    assert held.problem({"lines": lines}) is None
    names = schema(properties={"names": {"items": {"pattern": r"^[\p{L} .'-]{1,80}$"}}})
    assert names.problem({"names": ["Ana Žižek"] * 100}) is None


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        # As ECMA-262 has them: digits and word characters of ASCII, an end that is the end, \u and \p.
        (r"^\d+$", "12", "١٢"),
        (r"^\w+$", "abc", "äbc"),
        ("^a$", "a", "a\n"),
        (r"^\u00e4$", "ä", "a"),
        (r"^[\u0041-\u0043]$", "B", "D"),
        (r"^\\u0041$", "\\u0041", "A"),
        (r"^\p{Lu}", "Ä", "ä"),
        ("^(?<year>[0-9]{4})-", "2026-", "26-"),
        (r"^\S+@\S+$", "a@b", "a b"),
        ("a", "bab", "b"),
    ],
)
def test_patterns_mean_what_json_schema_says(pattern: str, good: str, bad: str) -> None:
    held = of_text(pattern)
    assert held.problem({"a": good}) is None
    assert held.problem({"a": bad}) == f"/a: is to have pattern {json.dumps(pattern)}"
    assert held.problem({"a": Decimal(1)}) is None
    assert held.problem({"a": "\ud800 of a payload that no JSON was"}) in {
        None,
        f"/a: is to have pattern {json.dumps(pattern)}",
    }
