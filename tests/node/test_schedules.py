"""Each CronJob does its work once, as its pod's user, limits and network let it."""

from __future__ import annotations

import secrets

import pytest

from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(1800)


def test_each_does_its_work_once(stage: StageOnNode) -> None:
    schedules = [each["metadata"]["name"] for each in stage.objects("apis/batch/v1/cronjobs")]
    assert {"backup", "backup-drill", "registry-sweep"} <= set(schedules)
    # A drill restores what a backup has made, so that one goes first.
    failed: dict[str, str] = {}
    for name in sorted(schedules, key=lambda name: name != "backup"):
        job = f"{name}-{secrets.token_hex(2)}"
        on_node = ("--namespace", NAMESPACE)
        stage.node.kubectl(*on_node, "create", "job", job, f"--from=cronjob/{name}")
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}"
        ended = until(lambda path=path: _end(stage, path), f"{name}: did not end")
        if ended != "Complete":
            failed[name] = stage.node.kubectl(*on_node, "logs", f"job/{job}", "--tail=60", check=False).stdout
    assert not failed, "\n".join(failed.values())


def _end(stage: StageOnNode, path: str) -> str | None:
    conditions = stage.node.get(path)["status"].get("conditions", ())
    ends = [each["type"] for each in conditions if each["status"] == "True"]
    return next((each for each in ends if each in ("Complete", "Failed")), None)
