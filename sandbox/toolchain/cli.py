"""``kilo toolchain``: the sandbox's programs ahead of their use, to warm a cache or to look."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sandbox.toolchain.catalogue import NAMES, ensure


def toolchain(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which ones; all without any. {', '.join(NAMES)}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object of path by name.")] = False,
) -> None:
    """Build or download the sandbox's programs and say where they are.

    Everything is cached under $XDG_CACHE_HOME/kilo (~/.cache/kilo) and found again.

    \b
    Examples:
      kilo toolchain
      kilo toolchain pulumi debezium
      $(kilo toolchain crane) version
    """
    found = ensure(*(names or NAMES))
    if as_json:
        typer.echo(json.dumps({name: str(path) for name, path in found.items()}, indent=2))
    elif len(found) == 1:
        typer.echo(next(iter(found.values())))
    else:
        width = max(map(len, found))
        for name, path in found.items():
            typer.echo(f"{name:<{width}}  {path}")
