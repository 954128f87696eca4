"""A dev stage whose parts can be taken away and whose tenants can be busy."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import psycopg

from sandbox import daemon
from sandbox.cluster.client import connect
from tests.alerts import shortened
from tests.alerts.receiver import PATIENCE_SECONDS
from tests.e2e.conftest import Stage

_APIS = {
    "ConfigMap": "/api/v1",
    "Secret": "/api/v1",
    "Deployment": "/apis/apps/v1",
    "StatefulSet": "/apis/apps/v1",
    "PrometheusRule": "/apis/monitoring.coreos.com/v1",
    "PodMonitor": "/apis/monitoring.coreos.com/v1",
    "AlertmanagerConfig": "/apis/monitoring.coreos.com/v1alpha1",
}
# Besides what alerts are told of, these make the faults possible or quick.
_CHANGES = (
    ('sweep_schedule: "*/5 * * * *"', 'sweep_schedule: "* * * * *"'),
    ("    gateway_scrape_seconds: 1", "    traces: {}\n    gateway_scrape_seconds: 1"),
    ("kilo:gateway: { replicas: 1,", "kilo:gateway: { replicas: 2, rate_limit_service: deployed,"),
    (
        "    - id: initech\n      tier: bronze",
        "    - id: initech\n      tier: bronze\n      spans_per_second: 1",
    ),
)


class AlertStage(Stage):
    """The stage, and what is done to it."""

    def __init__(self, directory: Path) -> None:
        if not (directory / "Pulumi.yaml").exists():
            super().__init__(directory)
            self._change_file()
        self.directory = directory
        self.shortened_at = 0.0

    def _change_file(self) -> None:
        file = self.directory / "Pulumi.dev.yaml"
        text = file.read_text(encoding="utf-8")
        for before, after in _CHANGES:
            assert before in text, before
            text = text.replace(before, after, 1)
        file.write_text(text, encoding="utf-8")

    def object(self, kind: str, name: str, change: Any = None) -> dict[str, Any]:
        """An object of the stage's namespace, changed by a function if one is given."""
        path = f"{_APIS[kind]}/namespaces/{self.outputs['namespace']}/{kind.lower()}s/{name}"
        with connect(self.endpoints.cluster) as client:
            found = client.get(path).raise_for_status().json()
            if change:
                change(found)
                client.put(path, content=json.dumps(found)).raise_for_status()
        return found

    def shorten(self, webhook: str) -> None:
        """Tell ``webhook`` of alerts, and wait for them no longer than a test can."""
        self.object("PrometheusRule", "kilo", lambda rule: shortened.shorten_rules(rule["spec"]))
        self.object("AlertmanagerConfig", "kilo", lambda each: shortened.shorten_routes(each["spec"]))
        for monitor in ("processes", "gateway"):
            self.object("PodMonitor", monitor, _scrape_often)
        namespace = self.outputs["namespace"]
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "alert-webhook", "namespace": namespace},
            "data": {"url": base64.b64encode(webhook.encode()).decode()},
        }
        with connect(self.endpoints.cluster) as client:
            path = f"/api/v1/namespaces/{namespace}/secrets/alert-webhook"
            client.patch(
                path,
                params={"fieldManager": "tests"},
                headers={"content-type": "application/apply-patch+yaml"},
                content=json.dumps(secret),
            ).raise_for_status()
        self.shortened_at = time.monotonic()

    @contextmanager
    def without(self, kind: str, name: str) -> Generator[None]:
        """No pod of a workload for as long as the block lasts."""
        there = self.object(kind, name)["spec"]["replicas"]
        self.object(kind, name, lambda found: found["spec"].update(replicas=0))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.object(kind, name)["status"].get("replicas"):
            assert time.monotonic() < deadline, f"{name} goes on"
            time.sleep(0.2)
        try:
            yield
        finally:
            self.object(kind, name, lambda found: found["spec"].update(replicas=there))

    def send(self, tenant: str, count: int = 1, aggregate: str = "order", **payload: Any) -> list[int]:
        """Send events side by side; the statuses of the answers."""
        gateway = self.outputs["gateway"]
        event = {
            "aggregate": aggregate,
            "aggregate_id": "42",
            "kind": f"{aggregate}.made",
            "payload": {"total": 12, **payload},
        }
        with httpx.Client(base_url=gateway["url"], trust_env=False, timeout=30) as client:

            def one(_: int) -> int:
                headers = {gateway["tenant_header"]: tenant, "Idempotency-Key": uuid4().hex}
                try:
                    return client.post("/v1/events", json=event, headers=headers).status_code
                except httpx.TransportError:
                    return 0

            with ThreadPoolExecutor(min(count, 20)) as pool:
                return list(pool.map(one, range(count)))

    @contextmanager
    def busy(self, tenant: str, count: int, pause_seconds: float = 1.0) -> Generator[None]:
        """A tenant that goes on sending ``count`` events at once for as long as the block lasts."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                self.send(tenant, count)
                over.wait(pause_seconds)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the database's owner."""
        with psycopg.connect(daemon.database_url(self.directory), autocommit=True) as connection:
            cursor = connection.execute(statement, values)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def locked(self, table: str) -> Generator[None]:
        """A table that nobody else can read for as long as the block lasts."""
        with psycopg.connect(daemon.database_url(self.directory)) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")  # type: ignore[call-overload]
            yield

    def aws(self, service: str) -> Any:
        """A client of the sandbox's cloud."""
        return boto3.client(
            service,
            endpoint_url=self.endpoints.aws,
            region_name="eu-central-1",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
        )

    def key_of(self, tenant: str) -> str:
        """The id of a tenant's KMS key."""
        return self.outputs["tenants"][tenant]["encryption_key"]["key"].rpartition("/")[2]


def _scrape_often(monitor: dict[str, Any]) -> None:
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        endpoint["interval"] = shortened.SCRAPE
