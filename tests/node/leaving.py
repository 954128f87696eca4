"""A node whose end leaves nothing on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.node import RealNode
from tests.patience import until

_WRITTEN = (
    "/opt/containerd",
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
)


@contextmanager
def node_that_leaves_nothing() -> Generator[RealNode]:
    """A node, not yet started, in a directory of its own; what it leaves fails the test."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and containers take root")
    # Sockets lie in it, whose paths may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="kn-"))
    made = RealNode(home)
    before = _of_the_machine()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)
    assert str(home) not in Path("/proc/self/mounts").read_text()
    assert not [group for group in Path("/sys/fs/cgroup").rglob("*") if group.name == made.name]
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if str(home).encode() in line]
    # The kernel takes a namespace's devices down after its last process is gone, when it has time.
    until(lambda: made.namespaces.cable not in os.listdir("/sys/class/net"), "the node's cable is left")
    assert _of_the_machine() == before


def _of_the_machine() -> list[Path]:
    """What containerd, runc, CNI and kubelets make where nothing keeps them from it."""
    return [place for place in map(Path, _WRITTEN) if place.exists()]
