"""Command-line options that say who must have signed an image; cosign's names for the same things."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SignedBy = Annotated[
    list[Path] | None,
    typer.Option("--signed-by", metavar="FILE", help="A public key (PEM) that may sign; again for more."),
]
CertificateIdentity = Annotated[
    str | None,
    typer.Option(
        "--certificate-identity",
        metavar="SUBJECT",
        help="Who may sign keyless, such as a workflow's URL; * stands for any characters.",
    ),
]
CertificateIssuer = Annotated[
    str | None,
    typer.Option("--certificate-oidc-issuer", metavar="URL", help="Who vouches for that identity."),
]
TrustedRootFile = Annotated[
    Path | None,
    typer.Option(
        "--trusted-root", metavar="FILE", help="Of a Sigstore of your own; default: the public-good one."
    ),
]
