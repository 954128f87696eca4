"""The node's namespaces and its container runtime, without a cluster: they come up and leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.images import Images
from tests.node.leaving import node_that_leaves_nothing
from tests.node.patience import until
from tests.node.settings import PAUSE

pytestmark = pytest.mark.timeout(900)


def test_a_container_runs_apart_and_nothing_of_it_is_left() -> None:
    with node_that_leaves_nothing() as node:
        node.start_runtime(Images(node.home / "image").pause())
        node.ctr("run", "--detach", f"--cgroup=/{node.name}/tried", PAUSE, "tried")
        assert "RUNNING" in node.ctr("tasks", "list")
        asked = "hostname; cat /proc/sys/kernel/panic; ls /proc/sys/net/ipv4/conf"
        inside = node.namespaces.run("sh", "-c", asked).stdout
        assert inside.split()[:2] == [node.name, "10"]
        assert "eth0" not in inside
        assert Path("/proc/sys/kernel/hostname").read_text().strip() != node.name
        # This machine and the node reach each other, and through it the pods will.
        assert node.machine in node.namespaces.run("ip", "route", "get", node.machine).stdout
        node.ctr("tasks", "kill", "--signal", "SIGTERM", "tried")
        until(lambda: "STOPPED" in node.ctr("tasks", "list"), "the container did not end")
