"""Writes everything that a stage consists of as readable text: a preview on an empty state.

A file of it in the repository shows, beside a change of code, what infrastructure it changes. What a
provider fills in or generates is left out, and so is what identifies an account.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from kilo.changes.redaction import redact
from kilo.changes.values import UNKNOWN

_LONG = 3_000
_AUTONAMED = "pulumi.com/autonamed"


def render_inventory(events: str) -> str:
    """Each resource that the events of a preview create, by type and name, with its inputs as YAML."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for line in events.splitlines():
        event = json.loads(line) if line.strip() else {}
        if "resourcePreEvent" in event and event["resourcePreEvent"]["metadata"]["op"] == "create":
            state = event["resourcePreEvent"]["metadata"]["new"]
            if not state["type"].startswith("pulumi:"):
                found.append((state["type"], state["urn"].rpartition("::")[2], _described(state)))
    yaml = YAML()
    yaml.width = 110
    text = io.StringIO()
    for type_, name, described in sorted(found, key=lambda item: item[:2]):
        text.write(f"{'─' * 8} {type_} {name}\n")
        if described:
            yaml.dump(described, text)
        text.write("\n")
    return redact(text.getvalue())


def _described(state: dict[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = state.get("inputs") or {}
    chosen: set[str] = set(inputs.get("__defaults") or ())
    shown = {
        key: _shown(value) for key, value in inputs.items() if key not in chosen and not key.startswith("__")
    }
    metadata: dict[str, Any] = shown.get("metadata") or {}
    if _AUTONAMED in (metadata.get("annotations") or {}):
        metadata["name"] = "(generated)"
    options = {name: True for name in ("protect", "retainOnDelete") if state.get(name)}
    return {**options, **shown} if state.get("custom") else options


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    if value in UNKNOWN:
        return "(known after the deployment)"
    if len(value) > _LONG:
        return f"({len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]})"
    if value[:1] in ("{", "["):
        try:
            value = json.dumps(json.loads(value), indent=2)
        except ValueError:
            return value
    return LiteralScalarString(value) if "\n" in value else value
