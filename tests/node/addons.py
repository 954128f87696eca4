"""What a cluster brings besides its node: names, disks, and the kinds of the Prometheus operator."""

from __future__ import annotations

import json

from sandbox import toolchain
from tests.kubernetes.cluster import APPLY
from tests.node.images import COREDNS
from tests.node.node import RealNode
from tests.node.patience import until
from tests.node.settings import DNS

_SYSTEM = "/api/v1/namespaces/kube-system"
DNS_PATH = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
_COREFILE = """\
.:53 {
  errors
  health
  ready
  kubernetes cluster.local in-addr.arpa {
    kubeconfig /etc/coredns/kubeconfig
  }
  cache 5
}
"""


def add_names(node: RealNode) -> None:
    """Run CoreDNS, and wait until it answers."""
    labels = {"k8s-app": "kube-dns"}
    files = {"kubeconfig": node.kubeconfig.read_text(), "Corefile": _COREFILE}
    _apply(node, f"{_SYSTEM}/configmaps/coredns", "ConfigMap", {"data": files})
    container = {
        "name": "coredns",
        "image": COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "files", "mountPath": "/etc/coredns"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
    }
    volume = {"name": "files", "configMap": {"name": "coredns"}}
    pod = {"dnsPolicy": "Default", "containers": [container], "volumes": [volume]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    _apply(
        node,
        DNS_PATH,
        "Deployment",
        {"spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}},
    )
    ports = [{"name": name.lower(), "port": 53, "protocol": name[:3]} for name in ("UDP", "TCP")]
    service = {"clusterIP": DNS, "selector": labels, "ports": ports}
    _apply(node, f"{_SYSTEM}/services/kube-dns", "Service", {"spec": service})
    until(lambda: node.get(DNS_PATH)["status"].get("readyReplicas"), "CoreDNS is not ready")


def add_disks(node: RealNode, first: int = 0, count: int = 3) -> None:
    """Volumes of the node's own disk, for claims that name no class."""
    for number in range(first, first + count):
        directory = node.home / "disks" / str(number)
        directory.mkdir(parents=True)
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        }
        _apply(node, f"/api/v1/persistentvolumes/disk-{number}", "PersistentVolume", {"spec": spec})


def add_kinds(node: RealNode) -> None:
    """Define the Prometheus operator's kinds, which nothing here acts on."""
    for file in sorted(toolchain.path("crds").glob("*.yaml")):
        group, _, plural = file.stem.partition("_")
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}"
        query = {"fieldManager": "tests", "force": "true"}
        text = file.read_text(encoding="utf-8")
        node.api.patch(path, params=query, content=text, headers=APPLY).raise_for_status()


def _apply(node: RealNode, path: str, kind: str, content: dict[str, object]) -> None:
    version = "apps/v1" if path.startswith("/apis/apps/v1/") else "v1"
    metadata = {"name": path.rpartition("/")[2]}
    node.apply(
        path, json.loads(json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata} | content))
    )
