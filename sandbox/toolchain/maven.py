"""What is made with Maven: how it is run, and what it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain import wheels
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Step


def require_maven() -> None:
    """Refuse a machine without Maven.

    Raises:
        Unreachable: it is not on PATH.
    """
    if shutil.which("mvn") is None:
        msg = (
            "Maven (mvn) is not on PATH and Debezium Server and Kafka come from Maven Central: "
            "install it (Debian and Ubuntu: apt-get install maven)"
        )
        raise Unreachable(msg)


def maven(arguments: Sequence[str], step: Step, *, directory: Path) -> None:
    """Run Maven in ``directory``.

    Raises:
        Unreachable: what it is to fetch can't be had.
    """
    # --strict-checksums fails on a mismatch with the repository's .sha1 instead of warning.
    argv = ["mvn", "--strict-checksums", *arguments]
    run(argv, step, directory=directory, environment=_environment(), describe=_transferred)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    if "JAVA_HOME" not in environment and shutil.which("java") is None:
        environment["JAVA_HOME"] = str(wheels.java_home())
    return environment


def _transferred(line: str) -> str | None:
    return line.partition(": ")[2] if line.startswith("Progress (") else None
