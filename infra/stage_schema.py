"""The JSON Schema of a stage's file, for editors and for the reference: what the settings' model says.

What looks across fields (tiers that may not promise more than the one above, names that must agree) is beyond
a schema; ``kilo check`` has it all.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from infra.configuration import PROJECT, PROVIDER_KEYS
from infra.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def stage_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema = Settings.model_json_schema(mode="validation")
    parts: dict[str, Any] = schema["$defs"]
    for model in _models(Settings, {}).values():
        part = schema if model is Settings else parts[model.__name__]
        for name, words in _docstrings(model).items():
            if name in part.get("properties", {}):
                part["properties"][name].setdefault("description", words)
    fields: dict[str, Any] = schema["properties"]
    required: list[str] = schema["required"]
    config = {f"{PROJECT}:{name}": _plain(value) for name, value in fields.items() if name != "stage"}
    asked = [f"{PROJECT}:{name}" for name in required if name != "stage"]
    for key, (field, name) in PROVIDER_KEYS.items():
        # They stand under the provider's own key, which it reads as well.
        part = parts[fields[field]["$ref"].removeprefix("#/$defs/")]
        config[key] = _plain(part["properties"].pop(name))
        part["required"].remove(name)
        asked.append(key)
    known = "|".join(sorted(name.partition(":")[2] for name in config if name.startswith(f"{PROJECT}:")))
    return {
        "$schema": DIALECT,
        "title": "A stage of Kilo: Pulumi.<stage>.yaml",
        "description": "Generated from infra/settings.py by `kilo check --schema`.",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "required": sorted(asked),
                "properties": dict(sorted(config.items())),
                # Other namespaces are the providers'; an unknown key of this one is a mistake.
                "patternProperties": {f"^{PROJECT}:(?!({known})$)": False},
            }
        },
        "$defs": {name: _plain(part) for name, part in sorted(parts.items())},
    }


def schema_text() -> str:
    """The schema as it is published in ``docs/stage.schema.json``."""
    return json.dumps(stage_schema(), indent=2, ensure_ascii=False) + "\n"


def _models(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """``model`` and every model within it, by name."""
    if model.__name__ not in found:
        found[model.__name__] = model
        for field in model.model_fields.values():
            for inner in _inside(field.annotation):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    _models(inner, found)
    return found


def _inside(annotation: object) -> list[Any]:
    found: list[Any] = [annotation]
    for inner in getattr(annotation, "__args__", ()):
        found.extend(_inside(inner))
    return found


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands under a field in quotes; pydantic's own way would put it into messages of mistakes too."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, words in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(words, ast.Expr)
                and isinstance(words.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(words.value.value).split())
    return found


def _plain(node: Any) -> Any:
    """Without the titles that pydantic makes of names."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    # A field may be called title; a title of the schema's is text.
    kept = {name: value for name, value in node.items() if name != "title" or not isinstance(value, str)}
    words = kept.get("description")
    if isinstance(words, str):
        kept["description"] = " ".join(words.split())
    return {
        name: value if name in {"default", "enum", "const"} else _plain(value) for name, value in kept.items()
    }
