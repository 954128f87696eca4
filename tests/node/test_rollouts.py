"""A workload is rolled out under load, and no request is lost: each is answered, and its event arrives."""

from __future__ import annotations

import json
import time

import pytest

from tests.node.loaded import load
from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(1800)

_BEFORE, _AFTER = 40, 80
_MERGE = {"content-type": "application/merge-patch+json"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("deployments", "ingest"),
        ("deployments", "gateway"),
        ("deployments", "outbox-worker"),
        ("deployments", "consumer"),
        ("statefulsets", "nats"),
        ("statefulsets", "debezium"),
    ],
)
def test_no_request_is_lost(stage: StageOnNode, kind: str, name: str) -> None:
    with load(stage) as result:
        result.wait_for_more(_BEFORE)
        roll_out(stage, kind, name)
        result.wait_for_more(_AFTER)
    assert result.failures == []
    result.wait_delivered()


def roll_out(stage: StageOnNode, kind: str, name: str) -> None:
    """Replace every pod as a new version would, and wait until it is done and the old ones are gone."""
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{name}"
    old = _pods(stage, name)
    assert old
    change = {"spec": {"template": {"metadata": {"annotations": {"tests/rolled-out": str(time.time())}}}}}
    stage.node.api.patch(path, content=json.dumps(change), headers=_MERGE).raise_for_status()
    until(lambda: _is_done(stage, path) and not old & _pods(stage, name), f"{name} was not rolled out")


def _is_done(stage: StageOnNode, path: str) -> bool:
    found = stage.node.get(path)
    status, wanted = found["status"], found["spec"]["replicas"]
    counts = [status.get(count, 0) for count in ("replicas", "updatedReplicas", "readyReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3


def _pods(stage: StageOnNode, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in stage.pods(name)}
