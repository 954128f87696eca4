"""``kilo graph``: a stage's processes and data, drawn from what its program makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilo.changes.diagram import mermaid, read_state, svg
from kilo.errors import BadInput
from kilo.project import find_project
from sandbox.rehearsal import Rehearsal


def graph(
    stage: Annotated[str, typer.Option("--stage", "-s", help="The stage to draw.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file that ends in .svg or .mmd.")
    ] = None,
) -> None:
    """Draw a stage's processes, who may talk to whom, and what they may use in the clouds.

    Without a file, prints Mermaid. The program is carried out in a throw-away place for it.

    Examples:

      kilo graph -s prod -o docs/prod.svg

      kilo graph -s dev
    """
    if output is not None and output.suffix not in (".svg", ".mmd"):
        msg = f"--output {output}: end it in .svg for a drawing or in .mmd for Mermaid"
        raise BadInput(msg)
    project = find_project()
    with Rehearsal() as rehearsal:
        rehearsal.carry_out(project, stage)
        diagram = read_state(rehearsal.resources(project, stage))
    text = svg(diagram) if output is not None and output.suffix == ".svg" else mermaid(diagram)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"--output {output}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
