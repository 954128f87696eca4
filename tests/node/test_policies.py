"""What a pod of each kind reaches, tried from pods on a real node with enforced network policies.

A prober has the labels of a workload, and with them its network; each is asked for every target. What
else the cluster keeps from pods, its admission by Pod Security's restricted level, is tried too.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.node.node import RealNode
from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

pytestmark = pytest.mark.timeout(1800)

_PROBE = """
import json, socket, sys, time
def reached(host, port):
    # A pod's own policies are set some moments after it has started; what is forbidden stays so.
    for _ in range(4):
        try:
            socket.create_connection((host, port), 3).close()
            return True
        except OSError:
            time.sleep(1)
    return False
time.sleep(5)
print(json.dumps({name: reached(*where) for name, where in json.loads(sys.argv[1]).items()}))
"""
DATABASE, BUS, INGEST, GATEWAY, CLOUDS, CLUSTER = "database", "bus", "ingest", "gateway", "clouds", "cluster"
REACHED = {
    # The platform's own, by their labels.
    "gateway": {INGEST, DATABASE, GATEWAY},
    "ingest": {DATABASE},
    "outbox-worker": {DATABASE, BUS},
    "outbox-reconciler": {DATABASE, BUS},
    "consumer": {DATABASE, BUS},
    "debezium": {DATABASE, BUS},
    "registry-mirror": set[str](),
    "nats": set[str](),
    # Nobody's, in the stage's namespace and in another.
    "stranger": set[str](),
    "neighbour": {GATEWAY, DATABASE, CLOUDS, CLUSTER},
}


def test_each_pod_reaches_what_it_is_for_and_nothing_else(stage: StageOnNode) -> None:
    targets = _targets(stage)
    names = {who: _start(stage.node, who, targets) for who in REACHED}
    found = {who: _reached(stage.node, who, name) for who, name in names.items()}
    # The sandbox stands on ports that no policy of the stage's has; one of its own lets every pod there.
    wanted = {who: reached | {CLOUDS} for who, reached in REACHED.items()}
    assert found == wanted


def _targets(stage: StageOnNode) -> dict[str, tuple[str, int]]:
    services = {
        each["metadata"]["name"]: (each["metadata"]["name"], each["spec"]["ports"][0]["port"])
        for each in stage.objects("api/v1/services")
    }

    def service(name: str) -> tuple[str, int]:
        return f"{name}.{NAMESPACE}.svc.cluster.local", services[name][1]

    database = urlsplit(stage.database_url)
    outputs = json.loads((stage.home.project / ".kilo" / "environment.json").read_bytes())
    clouds = urlsplit(outputs["AWS_ENDPOINT_URL"])
    return {
        DATABASE: (stage.node.machine, database.port or 0),
        BUS: service("nats"),
        INGEST: service("ingest"),
        GATEWAY: service("gateway"),
        CLOUDS: (clouds.hostname or "", clouds.port or 0),
        CLUSTER: ("kubernetes.default.svc.cluster.local", 443),
    }


def _start(node: RealNode, who: str, targets: dict[str, tuple[str, int]]) -> str:
    namespace = "default" if who == "neighbour" else NAMESPACE
    name = f"probe-{who}-{secrets.token_hex(2)}"
    code = base64.b64encode(_PROBE.encode()).decode()
    command = ["python3", "-c", f"import base64; exec(base64.b64decode('{code}'))", json.dumps(targets)]
    pod = restricted(name, _image(node), command)
    pod["metadata"]["labels"] = {"app.kubernetes.io/name": who}
    # Who reaches no name server is not to wait for minutes to hear so.
    quick = [{"name": name, "value": "1"} for name in ("timeout", "attempts")]
    pod["spec"]["dnsConfig"] = {"options": quick}
    # Of a workload's pods the Services are to lead to its own, so a prober is never ready.
    pod["spec"]["containers"][0]["readinessProbe"] = {"exec": {"command": ["false"]}}
    node.api.post(f"/api/v1/namespaces/{namespace}/pods", json=pod).raise_for_status()
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def _reached(node: RealNode, who: str, path: str) -> set[str]:
    until(lambda: node.get(path)["status"]["phase"] in ("Succeeded", "Failed"), f"{who}: did not end")
    said = node.api.get(f"{path}/log").raise_for_status().text
    node.api.request("DELETE", path, json={"gracePeriodSeconds": 0})
    return {name for name, reached in json.loads(said).items() if reached}


def _image(node: RealNode) -> str:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/ingest"
    (container,) = node.get(path)["spec"]["template"]["spec"]["containers"]
    return container["image"]


def restricted(name: str, image: str, command: list[str]) -> dict[str, Any]:
    """A pod that the restricted level admits."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
    }
    security = {"runAsUser": 10001, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("pod", {"hostNetwork": True}),
        ("pod", {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}),
        ("pod", {"securityContext": {"runAsUser": 0}}),
        ("container", {"securityContext": {"privileged": True}}),
        ("container", {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}),
    ],
)
def test_a_pod_with_more_rights_is_not_admitted(
    stage: StageOnNode, where: str, change: dict[str, Any]
) -> None:
    pod = restricted(f"more-{secrets.token_hex(2)}", _image(stage.node), ["true"])
    part = pod["spec"] if where == "pod" else pod["spec"]["containers"][0]
    part.update(change)
    answer = stage.node.api.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json=pod)
    assert answer.status_code == 403, answer.text
    assert 'violates PodSecurity "restricted' in answer.json()["message"]
