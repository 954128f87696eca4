"""``kilo outputs``: what a stage tells its services, in the form that the reader needs."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from kilo.automation import read_outputs
from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.host import replace_service_names, runs_here
from kilo.project import find_project

PREFIX = "KILO"


class Caller(StrEnum):
    """Who is to use the addresses in the outputs."""

    HOST = "host"
    CLUSTER = "cluster"


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
    caller: Annotated[
        Caller | None,
        typer.Option(
            "--for",
            help="Whose addresses: this machine's or the cluster's. [default: host in the dev stage of "
            "`kilo up`, cluster elsewhere]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", is_eager=True, callback=_print_schema, help="Print the JSON Schema of all stages."
        ),
    ] = False,
) -> None:
    """Print a stage's outputs: references to keys, streams, registries and buckets; never a secret.

    Examples: kilo outputs -s dev > outputs.json · eval "$(kilo outputs -s dev -f env)" ·
    kilo outputs -s dev --for cluster
    """
    project = find_project()
    found = read_outputs(stage, project)
    if (caller or default_caller(project)) is Caller.HOST:
        found = for_host(found, project)
    typer.echo(render(found, Format.JSON if as_json else output_format), nl=False)


def default_caller(project: Path) -> Caller:
    """This machine where the stage runs on it; a pod anywhere else."""
    return Caller.HOST if runs_here(project) else Caller.CLUSTER


def for_host(found: StackOutputs, project: Path) -> StackOutputs:
    """The outputs with addresses that this machine reaches.

    Raises:
        BadInput: the stage runs in a cluster, whose names resolve only there.
        Unreachable: one of its Services was not deployed.
    """
    if not runs_here(project):
        msg = (
            f"--for host: {found.stage} does not run on this machine, and its names resolve in its cluster"
            " alone; use --for cluster, and reach a Service from a pod there: none listens on its loopback"
            " address, to which kubectl port-forward connects"
        )
        raise BadInput(msg)
    return StackOutputs.model_validate_json(replace_service_names(found.model_dump_json(), project))


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
