"""A cluster in the test's own event loop, and small objects for it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sandbox import toolchain
from sandbox.cluster.cluster import Cluster
from sandbox.cluster.node.node import NodeSettings
from sandbox.cluster.objects import Key, Object

NAMESPACE = "shop"
# How long anything is waited for; no test depends on how long it takes.

T = TypeVar("T")

# A web server that answers on / with what VERSION says, and on /ready once the file READY names is there.
SERVER = """
import http.server, os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        wanted = os.environ.get("READY")
        code = 503 if self.path == "/ready" and wanted and not pathlib.Path(wanted).exists() else 200
        body = os.environ.get("VERSION", "1").encode()
        self.send_response(code); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8000), Handler)
print("serving", flush=True)
server.serve_forever()
"""


class RunningCluster:
    """A cluster and what tests do with it."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.store = cluster.store
        self.resources = cluster.resources

    def apply(self, obj: Object, **options: Any) -> Object:
        """Apply as the provider would."""
        return self.resources.apply(copy.deepcopy(obj), manager="test", **options)

    def find(self, kind: str, name: str) -> Object | None:
        """An object of the test's namespace."""
        return self.store.get(key(kind, name))

    def status(self, kind: str, name: str) -> Object:
        """Its status."""
        return (self.find(kind, name) or {}).get("status") or {}

    def delete(self, kind: str, name: str) -> None:
        """Begin its deletion."""
        self.resources.delete(key(kind, name))

    def pods(self, prefix: str = "") -> list[Object]:
        """The pods whose names begin so."""
        found = self.store.list("v1", "Pod", NAMESPACE)
        return [pod for pod in found if pod["metadata"]["name"].startswith(prefix)]

    def log(self, pod: str, *, previous: bool = False) -> str:
        """What the pod's first container has said."""
        found = self.find("Pod", pod)
        assert found is not None
        return self.cluster.node.logs.read(found, container=None, lines=None, previous=previous)


_VERSIONS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}


def key(kind: str, name: str) -> Key:
    """The key of an object of the test's namespace."""
    return Key(_VERSIONS.get(kind, "v1"), kind, NAMESPACE, name)


@asynccontextmanager
async def running(home: Path) -> AsyncGenerator[RunningCluster]:
    """A running cluster whose state lies under ``home``; stopped in order at the end."""
    cluster = Cluster(NodeSettings(home=home), toolchain.path("crds"))
    task = asyncio.create_task(cluster.run())
    await asyncio.sleep(0)
    try:
        yield RunningCluster(cluster, home)
    finally:
        await cluster.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def named(kind: str, name: str, **sections: Any) -> Object:
    """An object of the test's namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": _VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **sections}


def container(*arguments: str, **more: Any) -> Object:
    """A container that runs Python with the arguments."""
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    environment = [address, *more.pop("env", [])]
    return {"name": "main", "image": "python:3.11", "args": list(arguments), "env": environment, **more}


def server(**more: Any) -> Object:
    """A container that runs :data:`SERVER`."""
    ready = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8000}]
    return container("-u", "-c", SERVER, **{"ports": ports, "readinessProbe": ready, **more})


def template(main: Object, labels: dict[str, str], **spec: Any) -> Object:
    """A pod template."""
    grace = {"terminationGracePeriodSeconds": 5}
    return {"metadata": {"labels": labels}, "spec": {**grace, "containers": [main], **spec}}


def deployment(name: str, main: Object, *, replicas: int = 1, **spec: Any) -> Object:
    """A Deployment whose pods have the label ``app``."""
    labels = {"app": name}
    pod = spec.pop("pod", {})
    return named(
        "Deployment",
        name,
        spec={
            "replicas": replicas,
            "selector": {"matchLabels": dict(labels)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(main, labels, **pod),
            **spec,
        },
    )


def job(name: str, program: str, *, restart: str = "Never", **spec: Any) -> Object:
    """A Job that runs a Python program."""
    pod = template(container("-c", program), {"job": name}, restartPolicy=restart)
    return named("Job", name, spec={"template": pod, **spec})
