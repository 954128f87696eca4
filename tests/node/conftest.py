"""One real node for all tests of this folder, with the platform's own image on it; nothing of it is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.bring_up import bring_up
from tests.node.node import RealNode
from tests.node.stage import StageOnNode


@pytest.fixture(scope="session")
def node() -> Iterator[RealNode]:
    if os.geteuid() != 0:
        pytest.skip("namespaces and containers take root")
    # Sockets lie in it, whose paths may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="kn-"))
    made = RealNode(home)
    before = _of_the_machine()
    try:
        bring_up(made)
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)
    assert str(home) not in Path("/proc/self/mounts").read_text()
    assert not [group for group in Path("/sys/fs/cgroup").rglob("*") if group.name == made.name]
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if str(home).encode() in line]
    assert made.namespaces.cable not in os.listdir("/sys/class/net")
    assert _of_the_machine() == before


def _of_the_machine() -> list[Path]:
    """What runc, CNI and kubelets leave where they may write."""
    places = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods")
    return [place for place in map(Path, places) if place.exists()]


@pytest.fixture(scope="session")
def stage(node: RealNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageOnNode]:
    made = StageOnNode(node, tmp_path_factory.mktemp("checkout") / "kilo")
    try:
        made.up("--no-tour")
        yield made
    finally:
        made.remove()
