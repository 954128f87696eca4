"""The Debezium Server distribution, from Maven Central."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.commands import run
from sandbox.toolchain.maven import maven, require_maven
from sandbox.toolchain.progress import Step

VERSION = "3.6.0.Final"
_SHA256 = "901ce7b0b75b4dafaac4aa57dac6dfcad5937f96fb7159e25d22759bbf5192e4"
# This version of the plugin copies an artifact without asking for its POM, whose parent is not published.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"


def distribution() -> Recipe:
    """Debezium Server: ``config/``, ``lib/`` and the runner, without its connectors for Kafka Connect."""
    summary = f"Debezium Server {VERSION} from Maven Central, 782 MB"
    return Recipe("debezium-server", summary, f"{VERSION} {_SHA256}", 2_500_000_000, _make, require_maven)


def _make(directory: Path, step: Step) -> None:
    work = directory.parent
    artifact = f"io.debezium:debezium-server-dist:{VERSION}:tar.gz"
    arguments = [_COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={work}"]
    maven(arguments, step, directory=work)
    archive = work / f"debezium-server-dist-{VERSION}.tar.gz"
    step.update("checking")
    _check(archive)
    step.update("unpacking")
    unpack = ["tar", "--extract", "--gzip", f"--file={archive}", "--strip-components=1"]
    run([*unpack, "--exclude=debezium-server/connectors"], step, directory=directory)


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        msg = (
            f"{archive.name}: SHA-256 is {digest}, {_SHA256} was expected; remove it from ~/.m2 and try again"
        )
        raise Unreachable(msg)
