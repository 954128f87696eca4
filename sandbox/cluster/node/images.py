"""Container images and the local programs that stand for them."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kilo.scaffold.local_image import read_image
from sandbox import toolchain
from sandbox.toolchain import valkey

_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
# What the image's run.sh does: its own jar first, then the mounted configuration, then all libraries.
_DEBEZIUM = (
    "exec java --add-opens=java.base/java.lang=ALL-UNNAMED $JAVA_OPTS "
    '-cp "$(echo "$SERVER_HOME"/*-runner.jar):config:$SERVER_HOME/config/lib:$SERVER_HOME/lib/*" '
    "io.debezium.server.Main"
)


class ImageError(Exception):
    """No local program stands for the image, or the command is not in it."""


@dataclass(frozen=True)
class Image:
    """What an image's configuration says: entry point, default arguments, programs, working directory."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    path: tuple[Path, ...] = ()
    working_directory: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def search_path(self) -> str:
        """The ``PATH`` of its processes."""
        return os.pathsep.join([*map(str, self.path), *_SYSTEM_PATH])

    def find(self, program: str) -> str:
        """The local file of a program that the image has, by name or by its path in the image.

        Raises:
            ImageError: the image has none of that name.
        """
        name = Path(program).name
        for folder in [*self.path, *map(Path, _SYSTEM_PATH)]:
            if os.access(folder / name, os.X_OK):
                return str(folder / name)
        msg = f'exec: "{program}": executable file not found in $PATH'
        raise ImageError(msg)


def _kilo() -> Image:
    scripts = Path(sysconfig.get_path("scripts"))
    # Backups run pg_dump and the mirror runs crane, so the image brings both.
    return Image(entrypoint=("kilo",), path=(scripts, toolchain.path("postgres")))


def _envoy() -> Image:
    return Image(entrypoint=("envoy",), path=(toolchain.path("envoy").parent,))


def _nats() -> Image:
    return Image(entrypoint=("nats-server",), path=(toolchain.path("nats-server").parent,))


def _debezium() -> Image:
    java, home = toolchain.path("java"), toolchain.path("debezium")
    return Image(
        entrypoint=("sh", "-c", _DEBEZIUM),
        path=(java.parent,),
        working_directory="/debezium",
        environment={"JAVA_HOME": str(java.parent.parent), "SERVER_HOME": str(home), "JAVA_OPTS": ""},
    )


def _postgres() -> Image:
    return Image(entrypoint=("postgres",), path=(toolchain.path("postgres"),))


def _prometheus() -> Image:
    return Image(entrypoint=("prometheus",), path=(toolchain.path("prometheus").parent,))


def _alertmanager() -> Image:
    return Image(entrypoint=("alertmanager",), path=(toolchain.path("alertmanager").parent,))


def _alert_receiver() -> Image:
    command = ("python3", "-P", "-m", "sandbox.servers.alert_receiver")
    return Image(entrypoint=command, path=(Path(sys.executable).parent,))


def _collector() -> Image:
    return Image(entrypoint=("otelcol",), path=(toolchain.path("otelcol").parent,))


def _rate_limits() -> Image:
    return Image(entrypoint=("ratelimit",), path=(toolchain.path("ratelimit").parent,))


def _valkey() -> Image:
    home = toolchain.path("valkey")
    return Image(
        entrypoint=("valkey-server",),
        path=(home / valkey.PROGRAMS,),
        environment={"LD_LIBRARY_PATH": valkey.libraries(home)},
    )


def _python() -> Image:
    return Image(entrypoint=("python3",), path=(Path(sys.executable).parent,))


BUILT_IN: Mapping[str, Callable[[], Image]] = {
    "kilo": _kilo,
    "envoyproxy/envoy": _envoy,
    "nats": _nats,
    "debezium/server": _debezium,
    "postgres": _postgres,
    "prometheus/prometheus": _prometheus,
    "prometheus/alertmanager": _alertmanager,
    "sandbox/alert-receiver": _alert_receiver,
    "otel/opentelemetry-collector-contrib": _collector,
    "envoyproxy/ratelimit": _rate_limits,
    "valkey/valkey": _valkey,
    "python": _python,
}


class Images:
    """Finds the image of a reference: by its digest where a service's sources stand for it, else by its
    repository, whatever its registry, tag and digest.

    Args:
        known: local programs by repository.
        home: ``.kilo``, in which the images of services' sources lie.
    """

    def __init__(self, known: Mapping[str, Callable[[], Image]] = BUILT_IN, home: Path | None = None) -> None:
        self._known = known
        self._home = home

    def find(self, reference: str) -> Image:
        """The image.

        Raises:
            ImageError: nothing local stands for it; the message names what is there.
        """
        if self._home and (local := read_image(self._home, reference)):
            return Image(local.entrypoint, (), tuple(map(Path, local.path)), environment=local.environment)
        repository = reference.partition("@")[0]
        head, slash, last = repository.rpartition("/")
        repository = f"{head}{slash}{last.partition(':')[0]}"
        for name, make in self._known.items():
            if repository == name or repository.endswith(f"/{name}"):
                return make()
        known = ", ".join(sorted(self._known))
        msg = f'no local program stands for image "{reference}"; the sandbox runs {known}'
        raise ImageError(msg)
