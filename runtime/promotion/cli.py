"""``kilo promote``: may this be promoted?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime.contract import load_outputs
from runtime.errors import CheckFailed, Unreachable
from runtime.promotion import report
from runtime.promotion.parity import check_parity, places_of
from runtime.registry.client import Registries
from runtime.registry.drift import Kind
from runtime.registry.signatures import Keys

app = typer.Typer(help="Check that a promotion runs the same bits everywhere.", no_args_is_help=True)


class Format(StrEnum):
    """How the result is printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"
    ANNOTATIONS = "annotations"


_RENDERERS = {
    Format.JSON: report.as_json,
    Format.JUNIT: report.as_junit,
    Format.SARIF: report.as_sarif,
    Format.ANNOTATIONS: report.as_annotations,
}


@app.callback()
def promote() -> None:
    """Check that a promotion runs the same bits everywhere."""


@app.command(
    epilog="Example: kilo promote parity ingest:v1.4.0 worker:v1.4.0 --stages stage.json --stages prod.json "
    "--signed-by cosign.pub --format junit · exit code 1: not at parity, 3: a registry could not be reached"
)
def parity(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="NAME:TAG below the registries' URLs.")
    ],
    stages: Annotated[
        list[Path] | None,
        typer.Option(
            "--stages", metavar="FILE", help="Outputs of a stage; again for more. Default: KILO_OUTPUTS."
        ),
    ] = None,
    signed_by: Annotated[
        list[Path] | None,
        typer.Option("--signed-by", metavar="FILE", help="A public key (PEM) whose signatures are verified."),
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare images, signatures, SBOMs and provenance across every registry of the stages."""
    places = places_of([load_outputs(file) for file in stages] if stages else [load_outputs()])
    keys, registries = Keys(signed_by or []), Registries(patience_seconds=30)
    results = [check_parity(image, places, keys, registries) for image in images]
    chosen = Format.JSON if as_json else output_format
    if chosen is Format.TABLE:
        table = Table("image", "place", "finding", "detail")
        for result in results:
            for place in result.places:
                found = [difference for difference in result.differences if difference.place == place]
                for difference in found:
                    table.add_row(result.image, str(place), difference.kind.value, difference.detail)
                if not found:
                    detail = f"{result.digest[:19]}…, {result.claims} claims"
                    table.add_row(result.image, str(place), "same", detail)
        Console().print(table)
    else:
        typer.echo(_RENDERERS[chosen](results))
    kinds = {difference.kind for result in results for difference in result.differences}
    if kinds - {Kind.UNREACHABLE}:
        msg = f"not at parity: {', '.join(sorted(kind.value for kind in kinds))}"
        raise CheckFailed(msg)
    if kinds:
        msg = "a registry could not be reached, so parity is not known"
        raise Unreachable(msg)
