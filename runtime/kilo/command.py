"""The script ``kilo``: the command line, or one line that says which extra brings it."""

from __future__ import annotations

import sys

from kilo.extras import MissingExtra, requires


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        with requires("platform"):
            from kilo.cli import main as run  # noqa: PLC0415  an extra that services go without
    except MissingExtra as error:
        sys.stderr.write(f"kilo: error: {error}\n")
        return error.exit_code
    return run()
