"""The images that a stage's pods ask for, made here of the programs that this machine has.

Others' images are the platform's Debian layer with the very program of the sandbox in one more layer, under
the name that the stage gives it: what is tried is the stage on a cluster, not how its vendors pack.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from infra.settings import Settings
from sandbox import toolchain
from sandbox.cluster.node.images import BUILT_IN
from sandbox.image.archive import write_archive
from sandbox.image.build import build
from sandbox.image.derived import derive
from sandbox.image.description import lock_path, this_platform
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.progress import Step
from tests.kubernetes.programs import made
from tests.node.programs import coredns
from tests.node.settings import PAUSE

COREDNS = "registry.example.com/coredns:1"
_WAIT = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); signal.pause()"


@dataclass(frozen=True)
class _Made:
    """An image: its layer, by where files come from and go to, and how it runs."""

    name: str
    files: Mapping[Path, str]
    entrypoint: Sequence[str]
    directory: str = "/"
    environment: Mapping[str, str] | None = None
    on_debian: bool = True


class Images:
    """The images, each packed once and cached; the platform's, whose layer they stand on, is built for it.

    Args:
        directory: where to build it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def pause(self) -> Path:
        """The archive of the image that keeps a pod's namespaces."""
        return self._archive(_Made(PAUSE, {}, ("/usr/bin/python3", "-ISc", _WAIT)))

    def archives(self, settings: Settings) -> list[Path]:
        """An archive of each image that the stage's pods ask for but the platform's own, and of CoreDNS'."""
        return [self._archive(make(settings)) for make in (_nats, _envoy, _debezium, _coredns)]

    @cached_property
    def _platform(self) -> Path:
        return build(self._directory, Step(lambda _: None)).directory

    def _archive(self, image: _Made) -> Path:
        name = image.name.rpartition("/")[2].partition(":")[0]
        inputs = f"{image} {lock_path(this_platform()).read_text()}"
        summary = f"the image {image.name}"
        return (
            made(Recipe(f"node-image-{name}", summary, inputs, 1_000_000_000, self._maker(image)))
            / "image.tar"
        )

    def _maker(self, image: _Made) -> Callable[[Path, Step], None]:
        def make(directory: Path, step: Step) -> None:
            del step
            # Layers are linked rather than copied, which takes the same disk.
            with tempfile.TemporaryDirectory(prefix=".image-", dir=self._platform.parent) as work:
                root, layout = Path(work, "root"), Path(work, "layout")
                root.mkdir()
                for source, place in image.files.items():
                    target = root / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    copy = shutil.copytree if source.is_dir() else shutil.copy
                    copy(source, target)
                derive(
                    self._platform,
                    layout,
                    root=root if image.files else None,
                    run={"Entrypoint": list(image.entrypoint), "WorkingDir": image.directory},
                    environment=image.environment,
                    layers=1 if image.on_debian else 0,
                )
                write_archive(layout, image.name, directory / "image.tar")

        return make


def _nats(settings: Settings) -> _Made:
    return _Made(
        settings.images.nats, {toolchain.path("nats-server"): "usr/bin/nats-server"}, ("nats-server",)
    )


def _envoy(settings: Settings) -> _Made:
    return _Made(settings.images.envoy, {toolchain.path("envoy"): "usr/bin/envoy"}, ("envoy",))


def _debezium(settings: Settings) -> _Made:
    here = BUILT_IN["debezium/server"]()
    places = {"JAVA_HOME": "opt/java", "SERVER_HOME": "opt/debezium"}
    return _Made(
        settings.images.debezium,
        {Path(here.environment[name]): place for name, place in places.items()},
        here.entrypoint,
        here.working_directory,
        {
            **here.environment,
            **{name: f"/{place}" for name, place in places.items()},
            "PATH": "/opt/java/bin:/usr/bin",
        },
    )


def _coredns(settings: Settings) -> _Made:
    del settings
    return _Made(COREDNS, {coredns(): "coredns"}, ("/coredns",), on_debian=False)
