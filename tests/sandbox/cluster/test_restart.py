"""A cluster that is killed, with everything it runs, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.cluster.client import connect
from sandbox.servers.leftovers import processes_of
from tests.patience import until
from tests.sandbox.cluster.support import (
    NAMESPACE,
    container,
    deployment,
    job,
    named,
    server,
    template,
)

PROGRAM = Path(__file__).with_name("cluster_process.py")
PATHS = {"Deployment": "apis/apps/v1", "StatefulSet": "apis/apps/v1", "Job": "apis/batch/v1"}


class Client:
    """A cluster in another process, by its API."""

    def __init__(self, process: subprocess.Popen[str], http: httpx.Client) -> None:
        self.process = process
        self.http = http

    def apply(self, obj: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        where = "api/v1/namespaces" if obj["kind"] == "Namespace" else self.folder(obj["kind"])
        answer = self.http.patch(
            f"/{where}/{name}",
            params={"fieldManager": "test"},
            content=json.dumps(obj),
            headers={"content-type": "application/apply-patch+yaml"},
        )
        assert answer.is_success, answer.text

    def folder(self, kind: str) -> str:
        return f"{PATHS.get(kind, 'api/v1')}/namespaces/{NAMESPACE}/{kind.lower()}s"

    def get(self, kind: str, name: str = "") -> dict[str, Any]:
        return self.http.get(f"/{self.folder(kind)}/{name}".rstrip("/")).json()


@contextmanager
def cluster(home: Path) -> Generator[Client]:
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with connect(process.stdout.readline().strip()) as http:
            yield Client(process, http)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        until(lambda: not processes_of(str(home)))


def available(client: Client, name: str) -> bool:
    return client.get("Deployment", name).get("status", {}).get("availableReplicas") == 2


# Starts a child in a session of its own, which no signal to the pod's process group reaches.
STRAY = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
time.sleep(1000)
"""


def test_a_killed_cluster_leaves_no_process(tmp_path: Path) -> None:
    with cluster(tmp_path) as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.apply(deployment("web", server(), replicas=2))
        client.apply(deployment("stray", container("-c", STRAY), replicas=2))
        until(lambda: available(client, "web") and available(client, "stray"))
        # Two servers, two strays and the child of each.
        until(lambda: len(processes_of(str(tmp_path))) >= 6)
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
        until(lambda: not processes_of(str(tmp_path)))


def test_what_survives_cluster_and_guardian_is_ended_by_the_next_one(tmp_path: Path) -> None:
    environment = {**os.environ, "KILO_SANDBOX_OWNER": str(tmp_path)}
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1000)"], env=environment, start_new_session=True
    )
    until(lambda: processes_of(str(tmp_path)))
    with cluster(tmp_path):
        assert left.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pods_come_back_with_their_names_addresses_and_data(tmp_path: Path, number: signal.Signals) -> None:
    with cluster(tmp_path) as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.apply(
            named(
                "Service",
                "web",
                spec={"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
            )
        )
        client.apply(deployment("web", server(), replicas=2))
        until(lambda: available(client, "web"))
        before = {pod["metadata"]["name"]: pod for pod in client.get("Pod")["items"]}
        address = client.get("Service", "web")["spec"]["clusterIP"]
        client.process.send_signal(number)
        client.process.wait()
    with cluster(tmp_path) as client:
        until(lambda: available(client, "web"))

        def restarted() -> bool:
            pods = {pod["metadata"]["name"]: pod for pod in client.get("Pod")["items"]}
            every = [each for pod in pods.values() for each in pod["status"].get("containerStatuses", ())]
            counts = [each["restartCount"] for each in every]
            return pods.keys() == before.keys() and counts == [1, 1] and answers(address)

        until(restarted)
        pods = {pod["metadata"]["name"]: pod for pod in client.get("Pod")["items"]}
        for name, pod in pods.items():
            assert pod["status"]["podIP"] == before[name]["status"]["podIP"]
            assert pod["metadata"]["uid"] == before[name]["metadata"]["uid"]


def answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/", trust_env=False).text == "1"
    except httpx.HTTPError:
        return False


def test_a_job_that_was_cut_off_runs_again(tmp_path: Path) -> None:
    mark = tmp_path / "second time"
    program = f"import pathlib, time; p = pathlib.Path({str(mark)!r}); p.exists() or time.sleep(1000)"
    with cluster(tmp_path / "home") as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.apply(job("j", program))
        until(lambda: client.get("Job", "j").get("status", {}).get("ready") == 1)
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
    mark.touch()
    with cluster(tmp_path / "home") as client:
        until(lambda: client.get("Job", "j")["status"].get("completionTime"))
        assert client.get("Job", "j")["status"]["failed"] == 1


def test_a_deletion_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    labels = {"app": "web"}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}}
    slow = template(container("-c", stubborn), dict(labels), terminationGracePeriodSeconds=600)
    with cluster(tmp_path) as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.apply(named("Deployment", "web", spec={**spec, "template": slow}))
        until(lambda: [p for p in client.get("Pod")["items"] if p["status"].get("phase") == "Running"])
        client.http.delete(f"/{client.folder('Deployment')}/web")
        until(lambda: [p for p in client.get("Pod")["items"] if "deletionTimestamp" in p["metadata"]])
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
    with cluster(tmp_path) as client:
        until(lambda: not client.get("Pod")["items"])
        until(lambda: client.http.get(f"/{client.folder('Deployment')}/web").status_code == 404)


def test_a_second_cluster_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path) as client:
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.apply(deployment("web", server()))
        until(lambda: client.get("Deployment", "web").get("status", {}).get("availableReplicas") == 1)
        second = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from pathlib import Path\nfrom sandbox.cluster.addresses import Addresses\n"
                f"Addresses(Path({str(tmp_path / 'addresses.json')!r}))",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "in use by another sandbox" in second.stderr
