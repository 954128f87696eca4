"""A cluster's control plane, built once and cached."""

from __future__ import annotations

from pathlib import Path

from sandbox.toolchain import debian
from sandbox.toolchain.cache import Recipe, install
from sandbox.toolchain.golang import go_program
from sandbox.toolchain.progress import Progress

KUBERNETES = "1.37.2"
_HERE = Path(__file__).parent
_VERSION = "k8s.io/component-base/version"


def control_plane() -> Path:
    """The directory of ``kube-apiserver`` and ``kube-controller-manager``."""
    major, minor, _ = KUBERNETES.split(".")
    names = ("kube-apiserver", "kube-controller-manager")
    return _made(
        go_program(
            "kubernetes-control-plane",
            {name: f"k8s.io/kubernetes/cmd/{name}" for name in names},
            summary=f"Kubernetes {KUBERNETES}'s control plane from its Go module, 6 minutes",
            disk_bytes=4_000_000_000,
            # What compares versions, a provider for one, finds none in a program built from a module.
            linker_flags=f"-X {_VERSION}.gitVersion=v{KUBERNETES}"
            f" -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}",
            modules=_HERE,
        )
    )


def etcd() -> Path:
    """The program."""
    recipe = debian.package(
        "etcd-server", summary="etcd from its Debian package, 10 MB", disk_bytes=100_000_000
    )
    return _made(recipe) / "usr" / "bin" / "etcd"


def _made(recipe: Recipe) -> Path:
    if not recipe.directory.is_dir():
        with Progress() as progress, progress.step(recipe.name, recipe.summary) as step:
            install(recipe, step)
    return recipe.directory
