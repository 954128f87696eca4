"""The unchanged program on a real node, under the official provider: ``make test TESTS=tests/node``."""

from __future__ import annotations

import json
import re

import pytest

from tests.node.node import CONTEXT, RealNode
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(3600)


def test_the_node_is_ready(node: RealNode) -> None:
    assert node.is_ready()
    assert node.kubectl("get", "nodes", "--output=name").stdout.split() == [f"node/{node.name}"]


def test_every_workload_is_ready_and_runs_as_nobody_with_rights(stage: StageOnNode) -> None:
    workloads = [*stage.objects("apis/apps/v1/deployments"), *stage.objects("apis/apps/v1/statefulsets")]
    assert len(workloads) >= 9
    behind = {
        each["metadata"]["name"]: each["status"]
        for each in workloads
        if each["status"].get("readyReplicas", 0) != each["spec"]["replicas"]
    }
    assert behind == {}
    jobs = stage.objects("apis/batch/v1/jobs")
    assert [job["metadata"]["name"] for job in jobs if not job["status"].get("succeeded")] == []
    code = "print(open('/proc/self/status').read())"
    inside = ("exec", "deploy/ingest", "--", "python3", "-c", code)
    status = stage.node.kubectl("--namespace", NAMESPACE, *inside).stdout
    assert re.search(r"^Uid:\t10001\t", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)


def test_the_tour_loses_nothing(stage: StageOnNode) -> None:
    told = json.loads(stage.kilo("up", f"--context={CONTEXT}", "--json").stdout)
    assert told["total"]["sent"] == 500
    assert told["total"]["acknowledged"] == 500
    assert told["total"]["lost"] == 0


def test_a_second_up_changes_nothing(stage: StageOnNode) -> None:
    before = running(stage)
    done = stage.up("--no-tour")
    assert re.search(r"Resources:\s+\d+ unchanged", done.stdout), done.stdout
    assert running(stage) == before


def running(stage: StageOnNode) -> set[str]:
    """The pods of workloads; a Job's come and go with its schedule."""
    found = [pod["metadata"] for pod in stage.objects("api/v1/pods")]
    return {pod["uid"] for pod in found if {owner["kind"] for owner in pod["ownerReferences"]} != {"Job"}}


def test_status_and_logs_read_the_cluster(stage: StageOnNode) -> None:
    found = json.loads(stage.kilo("status", f"--context={CONTEXT}", "--json").stdout)
    names = {each["name"].partition("/")[2].rpartition("-")[0].rpartition("-")[0] for each in found}
    assert {"gateway", "ingest", "consumer"} <= names
    assert "aws" in {each["name"] for each in found}
    assert "ingest starts" in stage.kilo("logs", "ingest", f"--context={CONTEXT}").stdout
    refused = stage.kilo("logs", "nothing", f"--context={CONTEXT}", check=False)
    assert refused.returncode == 2
    assert "ingest-" in refused.stderr


def test_what_is_not_this_stages_is_refused(stage: StageOnNode) -> None:
    unknown = stage.kilo("up", "--context=nowhere", check=False)
    assert unknown.returncode == 2
    assert f"the kubeconfig has none of that name; it has: {CONTEXT}" in unknown.stderr
    assert stage.kilo("down", "--context=nowhere", check=False).returncode == 2

    other = StageOnNode(stage.node, stage.home.checkout.parent / "other")
    no_address = other.kilo("up", f"--context={CONTEXT}", check=False)
    assert no_address.returncode == 2
    assert "--address: name the address of this machine" in no_address.stderr
    file = other.home.checkout / "Pulumi.dev.yaml"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("config:\n", "config:\n  kilo:namespace: default\n", 1))
    somebodys = other.kilo("up", f"--context={CONTEXT}", f"--address={stage.node.machine}", check=False)
    assert somebodys.returncode == 2
    assert "its namespace 'default' was not made by a dev stage" in somebodys.stderr
    assert not other.home.project.exists()


def test_down_removes_it_from_the_cluster_and_from_this_machine(stage: StageOnNode) -> None:
    stage.kilo("down", f"--context={CONTEXT}")
    assert stage.node.api.get(f"/api/v1/namespaces/{NAMESPACE}").status_code == 404
    assert not stage.home.project.exists()
    assert stage.kilo("down", f"--context={CONTEXT}", check=False).returncode == 2
