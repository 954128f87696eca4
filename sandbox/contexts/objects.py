"""What a context's cluster has of the sandbox, besides what the program registers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandbox.contexts import forwarding
from sandbox.contexts.home import STAGE

OWNER_LABEL = "kilo.platform/stage"
RELAY = "sandbox-relay"
GATEWAY, GATEWAY_PORT = "gateway", 10_080
_NAME = "app.kubernetes.io/name"
_USER = 10_001


def sandbox_objects(namespace: str, image: str, address: str, ports: Sequence[int]) -> list[dict[str, Any]]:
    """The stage's namespace with a way out to the sandbox, and a way in to the gateway.

    Args:
        image: the platform's own.
        address: this machine's, as the cluster's pods reach it.
        ports: of the sandbox's servers that stand for clouds.
    """
    labels = {_NAME: RELAY}
    # Clouds answer at 443, where the stage's own policies let pods go; the sandbox answers elsewhere.
    out = _egress("sandbox", namespace, {}, [_rule([{"ipBlock": {"cidr": f"{address}/32"}}], ports)])
    names = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    gateway = [{"podSelector": {"matchLabels": {_NAME: GATEWAY}}}]
    way = _egress(
        RELAY,
        namespace,
        {"matchLabels": labels},
        [_rule(names, [53], "UDP"), _rule(names, [53]), _rule(gateway, [GATEWAY_PORT])],
    )
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {OWNER_LABEL: STAGE}},
        },
        out,
        way,
        _relay(namespace, image, labels),
    ]


def _relay(namespace: str, image: str, labels: dict[str, str]) -> dict[str, Any]:
    host = f"{GATEWAY}.{namespace}.svc.cluster.local"
    code = Path(forwarding.__file__).read_text(encoding="utf-8")
    container = {
        "name": "relay",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code, host, str(GATEWAY_PORT)],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": RELAY, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _egress(name: str, namespace: str, pods: dict[str, Any], rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": pods, "policyTypes": ["Egress"], "egress": rules},
    }


def _rule(to: list[dict[str, Any]], ports: Sequence[int], protocol: str = "TCP") -> dict[str, Any]:
    return {"to": to, "ports": [{"protocol": protocol, "port": port} for port in ports]}
