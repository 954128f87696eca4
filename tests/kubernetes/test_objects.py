"""A real API server takes every object of every stage, and admits every pod."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.rehearsal import Rehearsal
from tests.kubernetes.cluster import RealCluster

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
# How the engine's state marks a secret, https://www.pulumi.com/docs/iac/concepts/secrets/.
_SECRET = "4dabf18193072939515e22adb298388d"

pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_every_object_is_accepted_strictly_and_every_pod_is_admitted(
    stage: str, cluster: RealCluster
) -> None:
    with Rehearsal() as rehearsal:
        rehearsal.carry_out(ROOT, stage)
        state = json.loads(rehearsal.secret_values(ROOT, stage))
    objects = [
        plain(resource["inputs"])
        for resource in state["deployment"]["resources"]
        if resource["type"].startswith("kubernetes:")
    ]
    assert len(objects) > 70
    said: list[str] = []
    for each in sorted(objects, key=lambda obj: obj["kind"] != "Namespace"):
        answer = cluster.apply(path_of(each), json.dumps(each))
        if not answer.is_success or "warning" in answer.headers:
            said.append(f"{path_of(each)}: {answer.headers.get('warning', '')} {answer.text}")
    assert said == []
    namespace = next(obj["metadata"]["name"] for obj in objects if obj["kind"] == "Namespace")
    wait_until_all_run(cluster, namespace)


def wait_until_all_run(cluster: RealCluster, namespace: str) -> None:
    """The controllers can make every pod only if admission, with its Pod Security level, lets them."""
    waiting: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        waiting = [
            f"{workload['metadata']['name']}: {workload.get('status')}"
            for kind in ("deployments", "statefulsets")
            for workload in cluster.items(f"/apis/apps/v1/namespaces/{namespace}/{kind}")
            if workload.get("status", {}).get("readyReplicas", 0) != workload["spec"]["replicas"]
        ]
        if not waiting:
            return
        time.sleep(0.5)
    events = [event["message"] for event in cluster.items(f"/api/v1/namespaces/{namespace}/events")]
    pytest.fail("\n".join([*waiting, *events]))


def plain(value: Any) -> Any:
    """What the provider sends of a state's value: secrets opened, nothing of the engine's own."""
    if isinstance(value, dict):
        if _SECRET in value:
            return json.loads(value["plaintext"])
        return {name: plain(each) for name, each in value.items() if not name.startswith("__")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def path_of(obj: dict[str, Any]) -> str:
    """The object's path; every kind of ours has a regular plural."""
    kind = obj["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}es" if kind.endswith("s") else f"{kind}s"
    version = obj["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if obj["kind"] != "Namespace":
        root += f"/namespaces/{obj['metadata']['namespace']}"
    return f"{root}/{plural}/{obj['metadata']['name']}"
