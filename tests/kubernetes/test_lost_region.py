"""docs/runbooks/lost-region.md, step 4, as it stands: workloads get another database without the engine."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from tests.components.recorder import record
from tests.kubernetes.cluster import APPLY, RealCluster
from tests.kubernetes.test_objects import path_of, wait_until_all_run

ROOT = Path(__file__).parents[2]
NAMESPACE = "kilo-prod"
NEW_URL = "postgresql://root:new%40word@new.example:6432/recovered?sslmode=verify-full"
NEW = {"host": "new.example", "port": 6432, "name": "recovered", "sslmode": "verify-full"}
_TOOLS = ("bash", "kubectl", "jq")

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not all(map(shutil.which, _TOOLS)), reason=f"needs {', '.join(_TOOLS)}"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """One of its own: others make prod's objects in theirs."""
    made = RealCluster(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def objects(database: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What prod has in the cluster while its file says ``database``."""
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")
    told = settings.database.model_copy(update=dict(database))
    recording = record(lambda: deploy(settings.model_copy(update={"database": told})), stack="prod")
    made = [each.inputs for each in recording.resources if "metadata" in each.inputs]
    return sorted(made, key=lambda each: each["kind"] != "Namespace")


def step() -> str:
    """The commands of step 4 up to the images."""
    text = (ROOT / "docs" / "runbooks" / "lost-region.md").read_text("utf-8")
    whole = text[text.index("\n4. ") : text.index("\n5. ")].partition("kilo promote")[0]
    return "\n".join(re.findall(r"^ {7}(.*)$", whole, re.MULTILINE)).replace("ADDRESS", "10.9.8.7")


def test_workloads_are_told_of_the_restored_database(cluster: RealCluster) -> None:
    for each in objects({}):
        cluster.apply(path_of(each), json.dumps(each)).raise_for_status()
    wait_until_all_run(cluster, NAMESPACE)
    job = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/schema"
    before = cluster.api.get(job).json()

    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "KILO_RESTORE_URL": NEW_URL}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "new%40word" not in done.stdout + done.stderr

    # Each Secret is what the program makes once the stage's file names the new database.
    made = objects(NEW)
    wanted = {
        each["metadata"]["name"]: each["stringData"]
        for each in made
        if each["kind"] == "Secret" and each["metadata"]["name"].startswith("database-")
    }
    there = {
        each["metadata"]["name"]: {
            name: base64.b64decode(value).decode() for name, value in each["data"].items()
        }
        for each in cluster.items(f"/api/v1/namespaces/{NAMESPACE}/secrets")
    }
    assert {name: there[name] for name in wanted} == wanted
    assert len(wanted) >= 9
    after = cluster.api.get(job).json()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["succeeded"] == 1
    (container,) = after["spec"]["template"]["spec"]["containers"]
    (given,) = (each for each in container["env"] if each["name"] == "DATABASE_URL")
    assert given["valueFrom"]["secretKeyRef"]["name"] == "database-meanwhile"
    meanwhile = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/database-meanwhile").json()["data"]
    assert base64.b64decode(meanwhile["DATABASE_URL"]).decode() == NEW_URL
    # By this label its network policy lets it out.
    assert after["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "schema"
    restarted = {
        each["metadata"]["name"]
        for kind in ("deployments", "statefulsets")
        for each in cluster.items(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}")
        if "kubectl.kubernetes.io/restartedAt" in each["spec"]["template"]["metadata"].get("annotations", {})
    }
    assert {"ingest", "consumer", "outbox-worker", "outbox-reconciler", "debezium"} <= restarted
    assert "nats" not in restarted
    policy = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/database-meanwhile"
    [rule] = cluster.api.get(policy).json()["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.9.8.7/32"}}]

    # Afterwards `pulumi up` finds nothing in its way, which it would not take by force.
    query = {"fieldManager": "pulumi-kubernetes"}
    for each in made:
        if each["kind"] in {"Secret", "Deployment", "StatefulSet"}:
            answer = cluster.api.patch(path_of(each), params=query, content=json.dumps(each), headers=APPLY)
            assert answer.is_success, answer.text
