"""What the Prometheus operator runs: a Prometheus, and an Alertmanager with a receiver beside it.

Each is a StatefulSet behind a Service of the name that the operator's own would have,
``prometheus-operated`` and ``alertmanager-operated``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.cluster.objects import Key, Object

NAMESPACE = "monitoring"
_IMAGES = "quay.io/prometheus"
RECEIVER_PORT = 9095


@dataclass(frozen=True)
class Operated:
    """One program of the operator's.

    Attributes:
        program: its name, which the names of its objects begin with.
        port: on which it serves its pages and its API.
        holder: the kind of the object that holds its configuration, ``ConfigMap`` or ``Secret``.
        arguments: of its container.
        data: where it keeps what it stores.
        storage: of its volume.
        beside: further containers of its pod.
    """

    program: str
    port: int
    holder: str
    arguments: tuple[str, ...]
    data: str
    storage: str
    beside: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Of its StatefulSet and of what holds its configuration."""
        return f"{self.program}-kilo"

    @property
    def directory(self) -> str:
        """Where its configuration is mounted."""
        return f"/etc/{self.program}/config"

    @property
    def host(self) -> str:
        """Its Service's name."""
        return f"{self.program}-operated.{NAMESPACE}.svc.cluster.local"

    @property
    def config(self) -> Key:
        """What holds its configuration."""
        return Key("v1", self.holder, NAMESPACE, self.name)

    @property
    def made(self) -> tuple[Key, ...]:
        """Every object of :meth:`objects`."""
        service = Key("v1", "Service", NAMESPACE, f"{self.program}-operated")
        return (Key("apps/v1", "StatefulSet", NAMESPACE, self.name), service, self.config)

    def objects(self, files: Mapping[str, str]) -> list[Object]:
        """All that it is made of, with ``files`` as its configuration."""
        labels = {"app.kubernetes.io/name": self.program, self.program: "kilo"}
        metadata = {"name": self.name, "namespace": NAMESPACE, "labels": labels}
        return [
            {"apiVersion": "v1", "kind": self.holder, "metadata": metadata, "data": self.held(files)},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {**metadata, "name": f"{self.program}-operated"},
                "spec": {
                    "clusterIP": "None",
                    "selector": labels,
                    "ports": [
                        {"name": "http-web", "port": self.port, "targetPort": "http-web"},
                        *(
                            {"name": port["name"], "port": port["containerPort"], "targetPort": port["name"]}
                            for container in self.beside
                            for port in container["ports"]
                        ),
                    ],
                },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": metadata,
                "spec": {
                    "serviceName": f"{self.program}-operated",
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": self._pod()},
                    "volumeClaimTemplates": [
                        {
                            "metadata": {"name": "data"},
                            "spec": {
                                "accessModes": ["ReadWriteOnce"],
                                "resources": {"requests": {"storage": self.storage}},
                            },
                        }
                    ],
                },
            },
        ]

    def held(self, files: Mapping[str, str]) -> dict[str, str]:
        """``data`` of the object that holds ``files``."""
        if self.holder == "Secret":
            return {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
        return dict(files)

    def _pod(self) -> Object:
        reference = {"secretName": self.name} if self.holder == "Secret" else {"name": self.name}
        source = "secret" if self.holder == "Secret" else "configMap"
        container = {
            "name": self.program,
            "image": f"{_IMAGES}/{self.program}",
            "args": [*self.arguments, f"--web.listen-address=$(POD_IP):{self.port}"],
            "env": [_POD_IP],
            "ports": [{"name": "http-web", "containerPort": self.port}],
            "startupProbe": _probe("/-/ready", period=1, failures=120),
            "readinessProbe": _probe("/-/ready", period=5, failures=3),
            "livenessProbe": _probe("/-/healthy", period=10, failures=6),
            "volumeMounts": [
                {"name": "config", "mountPath": self.directory},
                {"name": "data", "mountPath": self.data},
            ],
        }
        return {
            "containers": [container, *self.beside],
            "volumes": [{"name": "config", source: reference}],
        }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http-web"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


_POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}

PROMETHEUS = Operated(
    program="prometheus",
    port=9090,
    holder="ConfigMap",
    arguments=(
        "--config.file=/etc/prometheus/config/prometheus.yaml",
        "--storage.tsdb.path=/prometheus",
        "--storage.tsdb.retention.time=2d",
        "--storage.tsdb.retention.size=512MB",
        # What was sent before Alertmanager was there is sent again sooner than after a minute.
        "--rules.alert.resend-delay=5s",
        "--web.enable-lifecycle",
    ),
    data="/prometheus",
    storage="1Gi",
)

ALERTMANAGER = Operated(
    program="alertmanager",
    port=9093,
    # Receivers' URLs may carry tokens.
    holder="Secret",
    arguments=(
        "--config.file=/etc/alertmanager/config/alertmanager.yaml",
        "--storage.path=/alertmanager",
        # One copy has no peers.
        "--cluster.listen-address=",
    ),
    data="/alertmanager",
    storage="100Mi",
    beside=(
        {
            "name": "receiver",
            "image": "sandbox/alert-receiver",
            "args": ["$(POD_IP)", str(RECEIVER_PORT)],
            "env": [_POD_IP],
            "ports": [{"name": "receiver", "containerPort": RECEIVER_PORT}],
        },
    ),
)
