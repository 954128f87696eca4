"""``kilo outputs``: what a stage tells its services, in the form that the reader needs."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from kilo.automation import read_outputs
from kilo.contract import StackOutputs
from kilo.project import find_project

PREFIX = "KILO"


class Format(StrEnum):
    """How the outputs are printed."""

    JSON = "json"
    ENV = "env"
    YAML = "yaml"


def schema_text() -> str:
    """The contract as JSON Schema (draft 2020-12), as it is published in ``docs/outputs.schema.json``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **StackOutputs.model_json_schema()}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _print_schema(wanted: bool) -> None:
    if wanted:
        typer.echo(schema_text(), nl=False)
        raise typer.Exit


def outputs(
    stage: Annotated[str, typer.Option("--stage", "-s", help="The stage, such as dev.")],
    output_format: Annotated[
        Format, typer.Option("--format", "-f", help="env: shell assignments, quoted for eval.")
    ] = Format.JSON,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", is_eager=True, callback=_print_schema, help="Print the JSON Schema of all stages."
        ),
    ] = False,
) -> None:
    """Print a stage's outputs: references to keys, streams, registries and buckets; never a secret.

    Examples: kilo outputs -s dev > outputs.json · eval "$(kilo outputs -s dev -f env)"
    """
    found = read_outputs(stage, find_project())
    typer.echo(render(found, Format.JSON if as_json else output_format), nl=False)


def render(found: StackOutputs, output_format: Format) -> str:
    """The outputs as text that ends in a newline.

    As ``env`` each value is one variable named by its path (``database.port`` is
    ``KILO_DATABASE_PORT``; hyphens turn to underscores), and lists are their items joined by commas.
    """
    values = found.model_dump(mode="json")
    if output_format is Format.JSON:
        return json.dumps(values, indent=2) + "\n"
    if output_format is Format.ENV:
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in _variables(PREFIX, values))
    from ruamel.yaml import YAML  # noqa: PLC0415  only this form needs it

    text = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(values, text)
    return text.getvalue()


def _variables(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _variables(f"{name}_{str(key).upper().replace('-', '_')}", inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _variables(f"{name}_{index}", inner)
    elif isinstance(value, list):
        yield name, ",".join(str(item) for item in value)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    else:
        yield name, str(value)
