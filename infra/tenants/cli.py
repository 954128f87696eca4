"""``kilo tenant add | list | offboard``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.check import stage_file
from infra.tenants.offboard import Step, walk
from infra.tenants.stage_file import StageFile
from kilo.environment import database_url
from kilo.errors import BadInput
from kilo.project import find_project
from kilo.tables import print_table

app = typer.Typer(no_args_is_help=True, help="The tenants of a stage.")

StageOption = Annotated[str, typer.Option("--stage", "-s", help="The stage whose file is meant.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]


@app.command("list", epilog="Example: kilo tenant list -s prod --json | jq '.[] | select(.tier == \"gold\")'")
def list_(stage: StageOption, as_json: JsonOption = False) -> None:
    """Show a stage's tenants with what their tiers give them."""
    tenants = _file(stage).settings.resolved_tenants
    if as_json:
        typer.echo(json.dumps([tenant.model_dump(mode="json") for tenant in tenants], indent=2))
        return
    columns = ("tenant", "tier", "requests/s", "availability", "encrypted", "accepting")
    rows = [
        (
            tenant.id,
            tenant.tier,
            tenant.limit.requests_per_second,
            f"{tenant.objective.availability_percent} %",
            ", ".join(tenant.encrypted_fields) or "-",
            "yes" if tenant.accepting else "no",
        )
        for tenant in tenants
    ]
    print_table(columns, rows, numbers=("requests/s",))


@app.command(
    epilog="Examples: kilo tenant add acorn -s dev --tier silver · "
    "kilo tenant add acorn -s prod --tier gold --encrypt email --encrypt phone"
)
def add(
    tenant: TenantArgument,
    stage: StageOption,
    tier: Annotated[str, typer.Option(help="gold, silver or bronze.")],
    encrypt: Annotated[
        list[str] | None, typer.Option(help="A field to encrypt, instead of those of the tier.")
    ] = None,
) -> None:
    """Put an entry for TENANT at the end of a stage's list; the next deployment makes all it needs."""
    file = _file(stage)
    fields = f"id: {_plain(tenant)}, tier: {_plain(tier)}"
    if encrypt:
        fields += f", encrypted_fields: [{', '.join(_plain(field) for field in encrypt)}]"
    file.add(fields)
    typer.echo(f"{file.path.name} has {tenant}. See what it makes: kilo preview-diff -s {stage}", err=True)


@app.command(
    epilog="Examples: kilo tenant offboard initech -s prod --export exports --dry-run · "
    "kilo tenant offboard initech -s prod --export exports --confirm initech"
)
def offboard(  # noqa: PLR0917
    tenant: TenantArgument,
    stage: StageOption,
    export: Annotated[Path, typer.Option(help="The folder that the tenant's rows are written to.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show where the walk stands, do nothing.")
    ] = False,
    confirm: Annotated[str, typer.Option(help="TENANT again, to do the next step without a question.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Walk TENANT out of a stage, one checked step a call.

    Flag off, drained, exported, entry removed, keys scheduled. Each call shows where the walk stands and does
    the next step after it was confirmed; what a person has to do is printed. DATABASE_URL names the stage's
    database.
    """
    file = _file(stage)
    steps = walk(file, tenant, export, database_url)
    _show(steps, as_json)
    following = next((step for step in steps if not step.done), None)
    if dry_run or following is None or following.act is None:
        return
    _confirmed(tenant, following, confirm)
    following.act()
    typer.echo(f"Done: {following.name}. Call it again for the next step.", err=True)


def _confirmed(tenant: str, step: Step, confirm: str) -> None:
    if not confirm and sys.stdin.isatty():
        confirm = typer.prompt(f"Next: {step.detail}. Type the tenant's id to go on", err=True)
    if confirm != tenant:
        given = f"'{confirm}' is not {tenant}" if confirm else "missing"
        msg = f"--confirm: {given}; the next step ({step.detail}) is done with --confirm {tenant}"
        raise BadInput(msg)


def _show(steps: list[Step], as_json: bool) -> None:
    if as_json:
        shown: list[dict[str, Any]] = [
            {"step": step.name, "done": step.done, "detail": step.detail, "commands": step.commands}
            for step in steps
        ]
        typer.echo(json.dumps(shown, indent=2))
        return
    for step in steps:
        typer.echo(f"{'✓' if step.done else '·'} {step.name}: {step.detail}")
        if step.commands and not step.done:
            typer.echo("".join(f"    {command}\n" for command in step.commands), nl=False)


def _file(stage: str) -> StageFile:
    return StageFile(stage_file(find_project(), stage))


def _plain(text: str) -> str:
    """``text`` as a YAML scalar that means just it: JSON's quotes are YAML's, where it needs any."""
    return (
        text if text.replace("-", "").replace("_", "").isalnum() and not text.isdigit() else json.dumps(text)
    )
