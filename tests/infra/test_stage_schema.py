"""The JSON Schema of a stage's file: current, right for the three files, and it finds mistakes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from infra.configuration import parse
from infra.stage_schema import schema_text
from kilo.errors import BadInput

ROOT = Path(__file__).parents[2]
STAGES = sorted(ROOT.glob("Pulumi.*.yaml"))
VALIDATOR = Draft202012Validator(json.loads(schema_text()))


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "stage.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `kilo check --schema > docs/stage.schema.json`"
    Draft202012Validator.check_schema(json.loads(published))


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.name)
def test_each_stages_file_is_as_the_schema_says_and_names_it(path: Path) -> None:
    assert [each.json_path + ": " + each.message for each in VALIDATOR.iter_errors(read(path))] == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=docs/stage.schema.json"
    assert (path.parent / first.partition("=")[2]).is_file()


@pytest.mark.parametrize(
    ("key", "place", "value"),
    [
        ("kilo:tenants", (0, "tier"), "platinum"),
        ("kilo:tenants", (0, "id"), "Acme Inc"),
        ("kilo:tenants", (0, "colour"), "red"),
        ("kilo:bus", ("replicas",), 2),
        ("kilo:backups", ("lock_days",), 0),
        ("kilo:backups", ("primary", "lock_mode"), "Compliance"),
        ("kilo:gateway", ("capacity_requests_per_second",), "many"),
        ("kilo:tenant", (), []),
        ("kilo:policy_enforcement", (), "maybe"),
        ("aws:region", (), "Frankfurt"),
        ("kilo:aws", ("region",), "eu-central-1"),
    ],
)
def test_what_kilo_check_refuses_an_editor_marks(
    key: str, place: tuple[int | str, ...], value: object
) -> None:
    document = copy.deepcopy(read(ROOT / "Pulumi.dev.yaml"))
    node: Any = document["config"]
    parts = (key, *place)
    for part in parts[:-1]:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[parts[-1]] = value
    assert list(VALIDATOR.iter_errors(document))
    if key != "kilo:aws":  # which the provider's own key wins over
        with pytest.raises(BadInput):
            parse(document["config"], "dev", "Pulumi.dev.yaml")


def test_a_missing_key_is_found() -> None:
    document = read(ROOT / "Pulumi.dev.yaml")
    del document["config"]["kilo:tiers"]
    assert [each.message for each in VALIDATOR.iter_errors(document)] == [
        "'kilo:tiers' is a required property"
    ]


def test_every_field_has_words_for_a_person_or_a_form() -> None:
    """For the reference: a field says what it is, or its type does."""
    schema = json.loads(schema_text())
    for name, part in schema["$defs"].items():
        for field, given in part.get("properties", {}).items():
            assert given.keys() & {"$ref", "type", "anyOf", "enum", "const", "description"}, f"{name}.{field}"
