"""The reference of what a stage tells its services, and of the events of this repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kilo.schemas import EventSchemas
from reference.schemas import rows
from reference.tables import HEAD, table


def outputs_page(schema: Mapping[str, Any]) -> str:
    """The page of a stage's outputs."""
    found = [row for row in rows(schema, schema, "", required=True) if row.path]
    body = [(f"`{row.path}`", row.type, row.default, row.words) for row in found]
    return (
        f"{HEAD}# Outputs\n\nWhat a stage tells its services, by [a contract](../outputs.schema.json) that "
        "changes by its version alone. They are references, never secrets. Read them with "
        "`kilo.contract.load_outputs()`, which takes the file that `KILO_OUTPUTS` names, or print them: "
        "`kilo outputs -s dev`.\n\n" + table(["path", "type", "default", "what it is"], body)
    )


def events_page(schemas: EventSchemas) -> str:
    """The page of this repository's own events."""
    parts = [
        f"{HEAD}# Events of this repository\n\nWhat `kilo tour` sends, from `events/`; "
        "[events as a contract](../events.md) says how they are kept. As AsyncAPI 3.0: "
        "[asyncapi.json](asyncapi.json).\n"
    ]
    for kind, each in schemas.items():
        found = [row for row in rows(each.document, each.document, "", required=True) if row.path]
        body = [
            (f"`{row.path}`", row.type, "yes" if row.default == "must be given" else "no", row.words)
            for row in found
        ]
        example = json.dumps(each.document["examples"][0], indent=2, ensure_ascii=False, default=float)
        parts.append(
            f"\n## {kind}\n\n{each.document['description']} Aggregate `{each.aggregate}`.\n\n"
            + table(["path", "type", "always there", "what it is"], body)
            + f"\n```json\n{example}\n```\n"
        )
    return "".join(parts)
