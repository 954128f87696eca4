"""The Prometheus operator's part: a Prometheus in the cluster that scrapes what monitors say.

It runs as a StatefulSet behind ``prometheus-operated.monitoring.svc.cluster.local:9090``, as the operator's
own would, for as long as there is a monitor or a rule. Alertmanager is not run here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import httpx

from sandbox.cluster.errors import ApiError
from sandbox.cluster.monitors import API, DIRECTORY, render
from sandbox.cluster.objects import Key, Object
from sandbox.cluster.resources import Resources

NAMESPACE = "monitoring"
NAME = "prometheus-kilo"
_CONFIG = Key("v1", "ConfigMap", NAMESPACE, NAME)
_MANAGER = "PrometheusOperator"
_PORT = 9090
# Pods come and go in groups.
_SETTLE_SECONDS = 0.5
_KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
_LABELS = {"app.kubernetes.io/name": "prometheus", "prometheus": "kilo"}
_log = logging.getLogger(__name__)


class PrometheusOperator:
    """Keeps the Prometheus there and its configuration up to date."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store = resources.store
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        self._store.subscribe(self._notice)
        self._changed.set()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                await self._reconcile()
            except ApiError as error:
                _log.warning("%s", error)

    def _notice(self, key: Key, obj: Object | None) -> None:
        del obj
        if key.kind in _KINDS or (key.kind in {"Pod", "Service"} and key.namespace != NAMESPACE):
            self._changed.set()

    async def _reconcile(self) -> None:
        wanted = any(True for kind in _KINDS for _ in self._store.list(API, kind))
        there = self._store.get(Key("v1", "Namespace", "", NAMESPACE)) is not None
        if not wanted:
            if there and self._store.get(_CONFIG):
                self._resources.delete(Key("v1", "Namespace", "", NAMESPACE))
            return
        files = render(self._store)
        before = self._store.get(_CONFIG)
        if before is not None and before["data"] == files:
            return
        for obj in _objects(files):
            self._resources.apply(obj, manager=_MANAGER)
        if before is not None:
            await self._reload()

    async def _reload(self) -> None:
        pod = self._store.get(Key("v1", "Pod", NAMESPACE, f"{NAME}-0")) or {}
        if address := (pod.get("status") or {}).get("podIP"):
            # One that is just starting reads the files by itself.
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                    answer = await client.post(f"http://{address}:{_PORT}/-/reload")
                if answer.is_error:
                    _log.warning("prometheus refuses its configuration: %s", answer.text.strip())


def _objects(files: dict[str, str]) -> list[Object]:
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS}
    governing = {**metadata, "name": "prometheus-operated"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": governing,
            "spec": {
                "clusterIP": "None",
                "selector": _LABELS,
                "ports": [{"name": "http-web", "port": _PORT, "targetPort": "http-web"}],
            },
        },
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": _stateful_set()},
    ]


def _stateful_set() -> Object:
    container = {
        "name": "prometheus",
        "image": "quay.io/prometheus/prometheus",
        "args": [
            f"--config.file={DIRECTORY}/prometheus.yaml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=2d",
            "--storage.tsdb.retention.size=512MB",
            "--web.enable-lifecycle",
            f"--web.listen-address=$(POD_IP):{_PORT}",
        ],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http-web", "containerPort": _PORT}],
        "startupProbe": _probe("/-/ready", period=1, failures=120),
        "readinessProbe": _probe("/-/ready", period=5, failures=3),
        "livenessProbe": _probe("/-/healthy", period=10, failures=6),
        "volumeMounts": [
            {"name": "config", "mountPath": DIRECTORY},
            {"name": "data", "mountPath": "/prometheus"},
        ],
    }
    return {
        "serviceName": "prometheus-operated",
        "selector": {"matchLabels": _LABELS},
        "template": {
            "metadata": {"labels": _LABELS},
            "spec": {
                "containers": [container],
                "volumes": [{"name": "config", "configMap": {"name": NAME}}],
            },
        },
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
        ],
    }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http-web"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
