"""The output contract: its schema is published, and no reader is broken without a new version."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from kilo.contract import CONTRACT_VERSION
from kilo.outputs import schema_text
from tests.infra.contract_changes import breaking_changes

ROOT = Path(__file__).parents[2]
RELEASED = Path(__file__).parent / "contract" / f"v{CONTRACT_VERSION}.json"


@pytest.fixture
def schema() -> dict[str, Any]:
    return json.loads(schema_text())


def test_the_published_schema_is_that_of_the_model() -> None:
    published = (ROOT / "docs" / "outputs.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `kilo outputs --schema > docs/outputs.schema.json`"


def test_nothing_breaks_readers_of_this_version(schema: dict[str, Any]) -> None:
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert breaking_changes(released, schema) == [], (
        "raise CONTRACT_VERSION and record `kilo outputs --schema` as that version's file beside this"
    )


def test_the_schema_names_the_version(schema: dict[str, Any]) -> None:
    assert schema["properties"]["contract_version"]["const"] == CONTRACT_VERSION


def test_a_field_with_a_default_may_be_added(schema: dict[str, Any]) -> None:
    more = deepcopy(schema)
    more["properties"]["queue"] = {"type": "string", "default": ""}
    more["$defs"]["BusOutputs"]["properties"]["cluster"] = {"type": "string", "default": ""}
    assert breaking_changes(schema, more) == []


def test_a_description_may_change(schema: dict[str, Any]) -> None:
    reworded = deepcopy(schema)
    reworded["properties"]["audit"]["description"] = "other words"
    assert breaking_changes(schema, reworded) == []


def _remove(schema: dict[str, Any]) -> None:
    del schema["$defs"]["BusOutputs"]["properties"]["url"]


def _rename(schema: dict[str, Any]) -> None:
    schema["properties"]["place"] = schema["properties"].pop("namespace")


def _retype(schema: dict[str, Any]) -> None:
    schema["$defs"]["DatabaseOutputs"]["properties"]["port"] = {"type": "string"}


def _require(schema: dict[str, Any]) -> None:
    schema["$defs"]["OutboxOutputs"]["properties"]["shard"] = {"type": "string"}
    schema["$defs"]["OutboxOutputs"]["required"].append("shard")


def _change_values(schema: dict[str, Any]) -> None:
    schema["$defs"]["BucketOutputs"]["properties"]["lock_mode"]["enum"].append("none")


def _drop_definition(schema: dict[str, Any]) -> None:
    del schema["$defs"]["KeyReference"]


def _refer_elsewhere(schema: dict[str, Any]) -> None:
    schema["properties"]["audit"]["$ref"] = "#/$defs/BackupOutputs"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_remove, "BusOutputs.url is gone"),
        (_rename, "namespace is gone"),
        (_retype, "DatabaseOutputs.port was {'type': 'integer'}, is {'type': 'string'}"),
        (_require, "OutboxOutputs.shard became required"),
        (_change_values, "BucketOutputs.lock_mode was"),
        (_drop_definition, "KeyReference is gone"),
        (_refer_elsewhere, "audit was"),
    ],
)
def test_what_breaks_readers_is_told(change: Any, line: str, schema: dict[str, Any]) -> None:
    changed = deepcopy(schema)
    change(changed)
    assert any(found.startswith(line) for found in breaking_changes(schema, changed))
