"""``kilo promote``: may this be promoted?"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from kilo.contract import SignersOutputs, StackOutputs, load_outputs
from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.promotion import report
from kilo.promotion.parity import check_parity, registry_locations
from kilo.promotion.plan import images_of
from kilo.registry.client import Registries
from kilo.registry.drift import Kind
from kilo.registry.options import CertificateIdentity, CertificateIssuer, SignedBy, TrustedRootFile
from kilo.registry.signers import Signers
from kilo.tables import print_table

app = typer.Typer(help="Gates of promotions, and whether the same bits run everywhere.", no_args_is_help=True)


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
    """Gates of promotions, and whether the same bits run everywhere."""


@app.command(
    epilog="Examples: kilo promote parity ingest:v1.4.0 worker:v1.4.0 --stages stage.json --stages prod.json "
    "--signed-by cosign.pub --format junit · kilo promote parity --plan plan.json --format annotations · "
    "exit code 1: not at parity, 3: a registry could not be reached"
)
def parity(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="NAME:TAG or NAME@DIGEST below the registries' URLs."),
    ] = None,
    *,
    stages: Annotated[
        list[Path] | None,
        typer.Option(
            "--stages", metavar="FILE", help="Outputs of a stage; again for more. Default: KILO_OUTPUTS."
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A plan of `pulumi preview --save-plan`: the images that it would run."
        ),
    ] = None,
    signed_by: SignedBy = None,
    certificate_identity: CertificateIdentity = None,
    certificate_oidc_issuer: CertificateIssuer = None,
    trusted_root: TrustedRootFile = None,
    output_format: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare images, signatures, SBOMs and provenance across every registry of the stages.

    Signatures are verified with the key or identity given, or else with the stages' own signers.
    """
    compared = [load_outputs(file) for file in stages] if stages else [load_outputs()]
    places = registry_locations(compared)
    if not images and not plan:
        msg = "nothing to compare: name an image (NAME:TAG), or a plan with --plan"
        raise BadInput(msg)
    wanted = [*(images or ()), *(images_of(plan, places) if plan else ())]
    signers = Signers.of_files(signed_by or [], certificate_identity, certificate_oidc_issuer, trusted_root)
    signers, registries = signers or _signers_of(compared), Registries(patience_seconds=30)
    results = [check_parity(image, places, signers, registries) for image in wanted]
    chosen = Format.JSON if as_json else output_format
    if chosen is Format.TABLE:
        rows: list[tuple[str, ...]] = []
        for result in results:
            for place in result.places:
                found = [difference for difference in result.differences if difference.place == place]
                rows += [(result.image, str(place), each.kind.value, each.detail) for each in found]
                if not found:
                    detail = f"{result.digest[:19]}…, {result.claims} claims"
                    rows.append((result.image, str(place), "same", detail))
        print_table(("image", "place", "finding", "detail"), rows)
    else:
        typer.echo(_RENDERERS[chosen](results))
    kinds = {difference.kind for result in results for difference in result.differences}
    if kinds - {Kind.UNREACHABLE}:
        msg = f"not at parity: {', '.join(sorted(kind.value for kind in kinds))}"
        raise CheckFailed(msg)
    if kinds:
        msg = "a registry could not be reached, so parity is not known"
        raise Unreachable(msg)


def _signers_of(stages: Sequence[StackOutputs]) -> Signers:
    """All stages' signers together: a stage that asks for none must not make the others' look unsigned."""
    every = [stage.registries.signers for stage in stages]
    return Signers.of_outputs(
        SignersOutputs(
            keys=tuple({key: None for signers in every for key in signers.keys}),
            identities=tuple({identity: None for signers in every for identity in signers.identities}),
            trusted_root=next((signers.trusted_root for signers in every if signers.trusted_root), None),
        )
    )


# A checkout brings the commands that read its stages' files.
for _point in sorted(entry_points(group="kilo.promote"), key=lambda each: each.name):
    app.command(_point.name)(_point.load())
