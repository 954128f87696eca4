"""What a cluster does to a stage under load: memory that ends, names, API server and kubelet that are away.

No request fails of what the fault does not touch, and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.addons import DNS_PATH
from tests.node.loaded import load
from tests.node.node import RealNode
from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(1800)

_AWAY_SECONDS = 60
_MORE_BYTES = 2_000_000_000
_MERGE = {"content-type": "application/merge-patch+json"}


@contextmanager
def no_names(node: RealNode) -> Generator[None]:
    _scale_names(node, 0)
    until(lambda: not node.get(DNS_PATH)["status"].get("replicas"), "CoreDNS is still there")
    try:
        yield
    finally:
        _scale_names(node, 1)
        until(lambda: node.get(DNS_PATH)["status"].get("readyReplicas"), "CoreDNS did not come back")


def _scale_names(node: RealNode, replicas: int) -> None:
    change = json.dumps({"spec": {"replicas": replicas}})
    node.api.patch(DNS_PATH, content=change, headers=_MERGE).raise_for_status()


@contextmanager
def no_server(node: RealNode, name: str) -> Generator[None]:
    node.servers[name].kill()
    try:
        yield
    finally:
        node.servers[name].start()
        until(node.is_ready, "the node did not come back")


@pytest.mark.parametrize("away", ["names", "kube-apiserver", "kubelet"])
def test_a_minute_without(stage: StageOnNode, away: str) -> None:
    stage.settle()
    with load(stage) as result:
        result.wait_for_more(20)
        with no_names(stage.node) if away == "names" else no_server(stage.node, away):
            time.sleep(_AWAY_SECONDS)
            result.wait_for_more(20)
        result.wait_for_more(20)
    assert result.failures == []
    result.wait_delivered()


@pytest.mark.parametrize("name", ["consumer", "outbox-worker"])
def test_a_pod_that_is_killed_for_its_memory_loses_nothing(stage: StageOnNode, name: str) -> None:
    stage.settle()
    (pod,) = stage.pods(name)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
    with load(stage) as result:
        result.wait_for_more(20)
        _exhaust(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://"))
        until(lambda: _was_killed(stage.node, path), f"{name}: was not killed for its memory")
        until(lambda: _is_ready(stage.node, path), f"{name}: did not come back")
        result.wait_for_more(20)
    assert result.failures == []
    result.wait_delivered()


def _exhaust(container: str) -> None:
    """Have its cgroup hold a file in memory, which counts as its own while its process is the largest."""
    groups = [
        group
        for group in Path("/sys/fs/cgroup").rglob(container)
        if (group / "memory.limit_in_bytes").exists() or (group / "memory.max").exists()
    ]
    assert len(groups) == 1
    file = Path("/dev/shm", container)
    fill = f"echo $$ > {groups[0]}/cgroup.procs && exec head -c {_MORE_BYTES} /dev/zero > {file}"
    try:
        subprocess.run(["sh", "-c", fill], check=False)
    finally:
        file.unlink(missing_ok=True)


def _was_killed(node: RealNode, path: str) -> bool:
    for container in node.get(path)["status"]["containerStatuses"]:
        ended = {**container.get("lastState", {}), **container["state"]}.get("terminated", {})
        if ended.get("reason") == "OOMKilled":
            return True
    return False


def _is_ready(node: RealNode, path: str) -> bool:
    return all(each["ready"] for each in node.get(path)["status"]["containerStatuses"])
