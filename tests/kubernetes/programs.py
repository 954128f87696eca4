"""Kubernetes' own programs and etcd, built or unpacked once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sandbox.toolchain import debian
from sandbox.toolchain.cache import Recipe, install
from sandbox.toolchain.golang import go_program
from sandbox.toolchain.progress import Progress

KUBERNETES = "1.37.2"
_HERE = Path(__file__).parent
_MODULE = "kubernetes-control-plane"
_VERSION = "k8s.io/component-base/version"


def control_plane() -> Path:
    """The directory of ``kube-apiserver`` and ``kube-controller-manager``."""
    names = ("kube-apiserver", "kube-controller-manager")
    return made(kubernetes("kubernetes-control-plane", names, "its control plane, 6 minutes"))


def kubernetes(name: str, programs: Sequence[str], summary: str) -> Recipe:
    """Some of Kubernetes' own programs."""
    major, minor, _ = KUBERNETES.split(".")
    return go_program(
        name,
        {program: f"k8s.io/kubernetes/cmd/{program}" for program in programs},
        summary=f"of Kubernetes {KUBERNETES}'s Go module {summary}",
        disk_bytes=4_000_000_000,
        # What compares versions, a provider for one, finds none in a program built from a module.
        linker_flags=f"-X {_VERSION}.gitVersion=v{KUBERNETES}"
        f" -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}",
        modules=_HERE,
        module_name=_MODULE,
    )


def etcd() -> Path:
    """The program."""
    recipe = debian.package(
        "etcd-server", summary="etcd from its Debian package, 10 MB", disk_bytes=100_000_000
    )
    return made(recipe) / "usr" / "bin" / "etcd"


def made(recipe: Recipe) -> Path:
    """The recipe's directory, made when it is missing."""
    if not recipe.directory.is_dir():
        with Progress() as progress, progress.step(recipe.name, recipe.summary) as step:
            install(recipe, step)
    return recipe.directory
