"""``kilo events``: finds events, and keeps the schemas that a repository promises of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilo.errors import CheckFailed
from kilo.observe.find import app
from kilo.schemas.asyncapi import render_asyncapi
from kilo.schemas.changes import Change, changes
from kilo.schemas.folder import EventSchemas, load_folder
from kilo.schemas.recorded import read_at, read_recorded, write_recorded
from kilo.tables import print_table

_Folder = Annotated[Path, typer.Argument(help="The directory with KIND.json for each kind of event.")]


@app.command()
def check(
    folder: _Folder = Path("events"),
    against: Annotated[
        str | None, typer.Option(help="A commit or branch to compare with, in place of recorded.lock.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the changes as JSON.")] = False,
) -> None:
    """Check the schemas of events, and refuse a change that would break whoever reads them.

    Compares with what `kilo events record` recorded, or with a commit. Exit code 1: a change would break.

    Example:  kilo events check
    Example:  kilo events check events --against origin/main
    """
    schemas = load_folder(folder)
    old = read_at(folder, against) if against else read_recorded(folder)
    found = changes(old, schemas) if old is not None else []
    if as_json:
        typer.echo(
            json.dumps({"kinds": list(schemas), "changes": [asdict(each) for each in found]}, indent=2)
        )
    else:
        if found:
            rows = [
                (each.kind, each.pointer or "/", each.what, "yes" if each.breaking else "no")
                for each in found
            ]
            print_table(["kind", "place", "what", "breaks"], rows)
        compared = against or ("what was recorded" if old is not None else "nothing: kilo events record")
        typer.echo(f"{len(schemas)} kinds of events, compared with {compared}")
    _refuse(folder, found)


@app.command()
def record(folder: _Folder = Path("events")) -> None:
    """Record the schemas as released, in recorded.lock, which belongs into git.

    Refused when a change would break: then give the event a new kind, and keep the old one beside it.

    Example:  kilo events record
    """
    schemas = load_folder(folder)
    _refuse(folder, changes(read_recorded(folder) or EventSchemas(str(folder), {}), schemas))
    written = write_recorded(folder, schemas)
    typer.echo(f"{len(schemas)} kinds of events " + ("recorded" if written else "as they were recorded"))


@app.command()
def asyncapi(
    folder: _Folder = Path("events"),
    title: Annotated[str, typer.Option(help="Of the document: the service's name.")] = "Events",
    version: Annotated[str, typer.Option(help="Of the service.")] = "0.1.0",
    subject_prefix: Annotated[str, typer.Option(help="As the stage's outputs have it.")] = "events",
) -> None:
    """Print the AsyncAPI 3.0 document of the schemas, as JSON.

    Example:  kilo events asyncapi --title orders > asyncapi.json
    """
    document = render_asyncapi(load_folder(folder), title, version, subject_prefix)
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=float))


def _refuse(folder: Path, found: list[Change]) -> None:
    breaking = [each for each in found if each.breaking]
    if breaking:
        first = breaking[0]
        more = f", and {len(breaking) - 1} more" if len(breaking) > 1 else ""
        msg = (
            f"{folder}/{first.kind}.json: {first.pointer or '/'}: {first.what}{more};"
            " what must change otherwise is a new kind beside this one"
        )
        raise CheckFailed(msg)
