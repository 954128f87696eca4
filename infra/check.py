"""``kilo check``: whether the stages' files are right, without the engine, for editors and hooks too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.configuration import read_stage_file
from infra.settings import Settings
from infra.stage_schema import schema_text
from kilo.errors import BadInput
from kilo.project import find_project


def check(
    stage: Annotated[
        list[str] | None, typer.Option("--stage", "-s", help="A stage to check; give it again for more.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a stage's file, for editors.")
    ] = False,
) -> None:
    """Check what ``Pulumi.<stage>.yaml`` says, all stages' unless some are named.

    Every mistake is one line with the file, the path in it, and what would be right. `kilo up` asks the same
    before it starts anything. Exits with 2 when a file holds a mistake.

    Examples:

      kilo check          every stage of this checkout

      kilo check -s prod

      kilo check --schema > docs/stage.schema.json
    """
    if schema:
        typer.echo(schema_text(), nl=False)
        return
    project = find_project()
    files = [stage_file(project, name) for name in stage] if stage else sorted(project.glob("Pulumi.*.yaml"))
    mistakes: list[str] = []
    for file in files:
        try:
            settings = read_stage_file(file)
        except BadInput as error:
            mistakes.append(str(error))
        else:
            typer.echo(f"{file.name}: fine, {len(settings.tenants)} tenants{_believed(settings)}")
    if mistakes:
        raise BadInput("\n".join(mistakes))


def _believed(settings: Settings) -> str:
    """Who names a request's tenant, where the gateway doesn't verify it itself."""
    gateway = settings.gateway
    if gateway.identity is None:
        header = gateway.tenant_header
        return f"; whoever reaches the gateway may name any of them in {header} (gateway.identity)"
    if proxy := gateway.identity.trusted_proxy:
        return f"; {gateway.tenant_header} is believed from {', '.join(proxy.networks)}"
    return ""


def stage_file(project: Path, stage: str) -> Path:
    """The file of a stage.

    Raises:
        BadInput: there is none; says which there are.
    """
    path = project / f"Pulumi.{stage}.yaml"
    if not path.is_file():
        known = ", ".join(file.name.split(".")[1] for file in sorted(project.glob("Pulumi.*.yaml")))
        msg = f"--stage {stage}: there is no {path.name}; stages: {known}"
        raise BadInput(msg)
    return path
