"""``kilo check``: whether the stages' files are right, without the engine, for editors and hooks too."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.clashes import clashes
from infra.configuration import kubernetes_context, read_stage_file
from infra.settings import Settings
from infra.stage_schema import schema_text
from kilo.errors import BadInput
from kilo.project import find_project


class Rights(StrEnum):
    """Whose policy is printed."""

    DEPLOYER = "deployer"
    PREVIEW = "preview"
    DRIFT = "drift"
    BOUNDARY = "boundary"


def check(
    stage: Annotated[
        list[str] | None, typer.Option("--stage", "-s", help="A stage to check; give it again for more.")
    ] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Look in the stage's clouds and cluster, too; changes nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what --cloud finds as JSON.")] = False,
    rights: Annotated[
        Rights | None,
        typer.Option(
            "--rights",
            help="Print the policy of who deploys, previews or looks for drift, or what bounds processes.",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a stage's file, for editors.")
    ] = False,
) -> None:
    """Check what ``Pulumi.<stage>.yaml`` says, all stages' unless some are named.

    Every mistake is one line with the file, the path in it, and what would be right; where a policy would be
    longer than AWS takes, and what two stages can't both have, such as a bucket's name, too. `kilo up` asks
    the same of its stage before it starts anything. Exits with 2 when a file holds a mistake.

    Examples:

      kilo check          every stage of this checkout

      kilo check -s prod

      kilo check --cloud -s prod          whether what prod needs is there: roles, APIs, CRDs, secrets

      kilo check --rights deployer -s prod > deployer.json          IAM's policy, to paste

      kilo check --schema > docs/stage.schema.json
    """
    if schema:
        typer.echo(schema_text(), nl=False)
        return
    if rights:
        if len(stage or ()) != 1:
            msg = "--rights are those of one stage: name it, as in kilo check --rights deployer -s prod"
            raise BadInput(msg)
        _print_rights(rights, *(stage or ()))
        return
    if cloud and len(stage or ()) != 1:
        msg = "--cloud looks with the credentials of one stage: name it, as in kilo check --cloud -s prod"
        raise BadInput(msg)
    project = find_project()
    files = [stage_file(project, name) for name in stage] if stage else sorted(project.glob("Pulumi.*.yaml"))
    mistakes: list[str] = []
    stages: dict[str, Settings] = {}
    for file in files:
        try:
            settings = read_stage_file(file)
        except BadInput as error:
            mistakes.append(str(error))
        else:
            stages[file.name] = settings
            if not as_json:
                typer.echo(f"{file.name}: fine, {len(settings.tenants)} tenants{_believed(settings)}")
    mistakes += clashes(stages)
    if mistakes:
        raise BadInput("\n".join(mistakes))
    if cloud:
        # Imports the clouds' clients.
        from infra.target.looking import look  # noqa: PLC0415

        for file, settings in stages.items():
            look(settings, kubernetes_context(project / file), as_json=as_json)


def _print_rights(of: Rights, stage: str) -> None:
    # Imports the engine's SDK.
    from infra.target.rights import (  # noqa: PLC0415
        boundary_arn,
        boundary_policy,
        deployer_policies,
        drift_policies,
        merged,
        preview_policies,
    )

    settings = read_stage_file(stage_file(find_project(), stage))
    documents = {
        Rights.DEPLOYER: lambda: merged(deployer_policies(settings)),
        Rights.PREVIEW: lambda: merged(preview_policies(settings)),
        Rights.DRIFT: lambda: merged(drift_policies(settings)),
        Rights.BOUNDARY: lambda: boundary_policy(settings),
    }
    typer.echo(json.dumps(documents[of](), indent=2))
    if of is Rights.DEPLOYER and settings.aws.permissions_boundary is None:
        said = f"it makes no role without the boundary {boundary_arn(settings)}"
        typer.echo(
            f"Pulumi.{stage}.yaml: kilo:aws.permissions_boundary: missing; {said}: make that and name it",
            err=True,
        )


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
