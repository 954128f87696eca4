"""Kafka's broker and Kafka Connect with Debezium's connector, from Maven Central."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.maven import maven, require_maven
from sandbox.toolchain.progress import Step

_POM = Path(__file__).parent / "modules" / "kafka" / "pom.xml"
_SHA256 = "972c6df853da201fe737f142a90c871d718818165ee6d378885bdbadeaf4dfac"
"""Over the jars' names and digests: what a version range or another repository resolved to would differ."""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"


def libraries() -> Recipe:
    """The directory of the jars."""
    inputs = f"{_POM.read_text(encoding='utf-8')} {_SHA256}"
    summary = "Kafka 4.3 and Debezium's connector from Maven Central, 59 MB"
    return Recipe("kafka", summary, inputs, 250_000_000, _make, require_maven)


def _make(directory: Path, step: Step) -> None:
    work = directory.parent
    shutil.copy(_POM, work)
    arguments = [_COPY, f"-DoutputDirectory={directory}", "-DincludeScope=runtime"]
    maven(arguments, step, directory=work)
    step.update("checking")
    found = _digest(directory)
    if found != _SHA256:
        msg = (
            f"Kafka's jars: SHA-256 over them is {found}, {_SHA256} was expected;"
            " remove org/apache/kafka and io/debezium from ~/.m2/repository and try again"
        )
        raise Unreachable(msg)


def _digest(directory: Path) -> str:
    lines: list[str] = []
    for jar in sorted(directory.glob("*.jar")):
        with jar.open("rb") as file:
            lines.append(f"{jar.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
