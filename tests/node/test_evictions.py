"""Pods that a cluster sends away under load: one by one by its leave, and all at once with their node."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.node.loaded import load
from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(1800)


@contextmanager
def _copies(stage: StageOnNode, name: str, count: int) -> Generator[None]:
    def scale(replicas: int) -> None:
        stage.node.kubectl("--namespace", NAMESPACE, "scale", f"deployment/{name}", f"--replicas={replicas}")
        until(lambda: _ready(stage, name) == replicas, f"{name} has not {replicas} ready pods")

    before = _ready(stage, name)
    scale(count)
    try:
        yield
    finally:
        scale(before)


@pytest.mark.parametrize("name", ["ingest", "gateway"])
def test_no_request_is_lost_by_evictions(stage: StageOnNode, name: str) -> None:
    with _copies(stage, name, 2):
        with load(stage) as result:
            result.wait_for_more(20)
            for pod in stage.pods(name):
                until(lambda pod=pod["metadata"]["name"]: _evicted(stage, pod), f"{name}: nobody may go")
                result.wait_for_more(20)
            until(lambda: _ready(stage, name) == 2, f"{name} did not come back")
            result.wait_for_more(20)
        assert result.failures == []
        result.wait_delivered()


def test_a_pod_stays_while_another_is_not_back(stage: StageOnNode) -> None:
    """Whoever drains nodes asks for more than may go at once."""
    with _copies(stage, "ingest", 2):
        first, second = (pod["metadata"]["name"] for pod in stage.pods("ingest"))
        assert _evicted(stage, first)
        assert not _evicted(stage, second)
        until(lambda: _ready(stage, "ingest") == 2, "ingest did not come back")


def test_a_drained_node_loses_nothing_that_was_acknowledged(stage: StageOnNode) -> None:
    """The only node there is: while it is drained nobody answers, and afterwards all goes on."""
    node = stage.node
    with load(stage) as result:
        result.wait_for_more(20)
        try:
            drain = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=600s")
            node.kubectl("drain", node.name, *drain)
            assert [pod["metadata"]["name"] for pod in stage.objects("api/v1/pods") if _runs(pod)] == []
        finally:
            node.kubectl("uncordon", node.name)
        until(lambda: _all_ready(stage), "not every workload came back")
        result.wait_for_more(20)
    assert result.acknowledged
    result.wait_delivered()


def _evicted(stage: StageOnNode, pod: str) -> bool:
    """Ask that a pod go, as whoever drains its node does; ``False`` while its budget forbids it."""
    content = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    answer = stage.node.api.post(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", json=content)
    if answer.status_code == 429:
        return False
    answer.raise_for_status()
    return True


def _ready(stage: StageOnNode, name: str) -> int:
    found = stage.node.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
    status = found["status"]
    settled = status.get("observedGeneration") == found["metadata"]["generation"]
    gone = status.get("replicas", 0) == found["spec"]["replicas"] == len(stage.pods(name))
    return status.get("readyReplicas", 0) if settled and gone else -1


def _runs(pod: dict[str, object]) -> bool:
    status = pod["status"]
    assert isinstance(status, dict)
    return status["phase"] == "Running"


def _all_ready(stage: StageOnNode) -> bool:
    workloads = [*stage.objects("apis/apps/v1/deployments"), *stage.objects("apis/apps/v1/statefulsets")]
    return all(each["status"].get("readyReplicas", 0) == each["spec"]["replicas"] for each in workloads)
