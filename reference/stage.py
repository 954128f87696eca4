"""The reference of a stage's file: every path with type, default, limits and an example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reference.schemas import rows
from reference.tables import HEAD, code, table

_LONGEST_EXAMPLE = 70


def stage_page(schema: Mapping[str, Any], example: Path) -> str:
    """The page.

    Args:
        schema: of a stage's file.
        example: a stage's file whose values are the examples.
    """
    config = schema["properties"]["config"]
    given = YAML(typ="safe").load(example)["config"]
    parts = [
        HEAD,
        "# The stage's file\n\nEvery path of `Pulumi.<stage>.yaml`, read from `infra/settings.py`. ",
        "`kilo check` says what is wrong with a file, and [the schema](../stage.schema.json) lets an editor "
        "do so while you type: the first line of each file names it for `yaml-language-server` "
        "(VS Code: the extension YAML).\n\n",
        f"Examples are those of `{example.name}`; `[]` stands for an item of a list, `NAME` for a key that "
        "you choose.\n",
    ]
    for key, node in config["properties"].items():
        found = list(rows(schema, node, key, required=key in config["required"]))
        shown = found if len(found) == 1 else found[1:]
        parts.append(f"\n## {key}\n\n")
        if found[0].words and shown is not found:
            parts.append(found[0].words.replace("``", "`") + "\n\n")
        parts.append(
            table(
                ["path", "type and limits", "default", "example", "what it is"],
                [
                    (
                        f"`{row.path}`",
                        ", ".join(each for each in (row.type, row.limits) if each),
                        row.default,
                        _example(given, row.path),
                        row.words.replace("``", "`"),
                    )
                    for row in shown
                ],
            )
        )
    return "".join(parts)


def _example(given: Any, path: str) -> str:
    """The first value that the example has at ``path``, when it is short."""
    key, _, rest = path.partition(".")
    name, *_ = key.split("[]")
    node: Any = given.get(name) if isinstance(given, dict) else None
    if "[]" in key:
        found = (_example(each, rest) if rest else "" for each in node or ())
        return next((each for each in found if each), "")
    if rest.startswith("NAME."):
        found = (_example(each, rest.removeprefix("NAME.")) for each in (node or {}).values())
        return next((each for each in found if each), "")
    if rest:
        return _example(node, rest)
    text = "" if node is None else code(node)
    return text if len(text) <= _LONGEST_EXAMPLE else ""
