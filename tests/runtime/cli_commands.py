"""Commands that behave badly, for test_cli."""

from __future__ import annotations

import errno

import typer

from kilo.errors import BadInput, CheckFailed, Unreachable

group = typer.Typer(help="A group.")


@group.command()
def only() -> None:
    """The one command of a group."""
    typer.echo("only")


def check_failed() -> None:
    msg = "the registries differ"
    raise CheckFailed(msg)


def bad_input(as_json: bool = typer.Option(False, "--json")) -> None:
    msg = "Pulumi.dev.yaml: tenants[0].tier: platinum is no tier"
    raise BadInput(msg)


def unreachable() -> None:
    msg = "postgres.example:5432 refuses connections"
    raise Unreachable(msg)


def interrupted() -> None:
    raise KeyboardInterrupt


def defect() -> None:
    msg = "unforeseen"
    raise RuntimeError(msg)


def lost_connection() -> None:
    raise BrokenPipeError(errno.EPIPE, "the server went away")


def needs_extra() -> None:
    raise ModuleNotFoundError(name="boto3.session")


def answer(code: int) -> None:
    raise typer.Exit(code)
