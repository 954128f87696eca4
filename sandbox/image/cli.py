"""``kilo image``: build the platform's own image, and move what is locked in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kilo.errors import BadInput
from sandbox.image.archive import require_writable, write_archive
from sandbox.image.build import build as build_image
from sandbox.image.debian import resolve
from sandbox.image.description import PLATFORMS, describe, lock_path, this_platform
from sandbox.image.sbom import sbom_text
from sandbox.toolchain.progress import Progress

app = typer.Typer(no_args_is_help=True, help="Build the platform's own image without a container engine.")


@app.command()
def build(
    *,
    output: Annotated[Path, typer.Option(help="The OCI layout's directory, made anew.")] = Path(
        "build/image"
    ),
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Also one file with the image under --name, as containerd, kind and others load it."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the archive's image is called: REGISTRY/REPOSITORY:TAG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the image of this checkout as an OCI layout; the same checkout gives the same digest.

    \b
    Examples:
      kilo image build
      kilo image build --output build/image --json | jq -r .digest
      $(kilo toolchain crane) push build/image REGISTRY/kilo:TAG
      kilo image build --archive kilo.tar --name REGISTRY/kilo:TAG && kind load image-archive kilo.tar
    """
    if (archive is None) != (name is None):
        msg = "--archive and --name: an archive's image has a name; give both or none"
        raise BadInput(msg)
    if archive and name:
        # Before minutes are spent on what could not be written.
        require_writable(name, archive)
    with Progress() as progress, progress.step("image", "Debian's packages, wheels and the platform") as step:
        image = build_image(output, step)
    if archive and name:
        write_archive(output, name, archive)
    if as_json:
        typer.echo(json.dumps(image.document(), indent=2))
        return
    typer.echo(f"{image.directory}  {image.platform}  {image.digest}")
    typer.echo(
        f"{image.compressed_bytes / 1e6:.0f} MB to fetch, {image.unpacked_bytes / 1e6:.0f} MB unpacked"
    )


@app.command()
def sbom(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The same: the document is JSON.")] = False,
) -> None:
    """Print what is in the image as CycloneDX, from the locks that it is built by.

    \b
    Examples:
      kilo image sbom > sbom.cdx.json
    """
    del as_json
    typer.echo(sbom_text(this_platform()), nl=False)


@app.command()
def lock() -> None:
    """Resolve Debian's packages again, for every architecture; wheels: make lock.

    \b
    Examples:
      kilo image lock && git diff sandbox/image
    """
    for target in PLATFORMS.values():
        summary = f"Debian's packages for {target.debian}"
        with Progress() as progress, progress.step("image", summary) as step:
            found = resolve(describe().debian, target, step)
        lock_path(target).write_text(found.text())
        typer.echo(f"{lock_path(target)}: {len(found.packages)} packages")
