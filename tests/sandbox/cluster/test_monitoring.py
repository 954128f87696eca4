"""What becomes of monitors and rules: a real Prometheus that scrapes and evaluates them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from typing_extensions import override

from sandbox import toolchain
from sandbox.cluster.monitors import render
from sandbox.cluster.objects import Key, Object
from tests.patience import eventually
from tests.sandbox.cluster.support import NAMESPACE, RunningCluster, container, deployment, named

API = "monitoring.coreos.com/v1"
METRICS = """
import os, prometheus_client, time
prometheus_client.Gauge("kilo_test", "A test's own", ["secret"]).labels("x").set(7)
prometheus_client.start_http_server(8000, os.environ["POD_IP"])
time.sleep(1000)
"""


def custom(kind: str, name: str, **spec: Any) -> Object:
    return {**named(kind, name, spec=spec), "apiVersion": API}


def pod_monitor(**endpoint: Any) -> Object:
    endpoints = [{"port": "http", "path": "/metrics", "interval": "1s", **endpoint}]
    return custom("PodMonitor", "all", selector={}, jobLabel="app", podMetricsEndpoints=endpoints)


def rule(expression: str) -> Object:
    groups = [{"name": "g", "interval": "1s", "rules": [{"record": "kilo:test", "expr": expression}]}]
    return custom("PrometheusRule", "rules", groups=groups)


def workload() -> Object:
    return deployment("web", container("-c", METRICS, ports=[{"name": "http", "containerPort": 8000}]))


async def value(cluster: RunningCluster, query: str) -> list[Any]:
    address = cluster.cluster.addresses.service("monitoring", "prometheus-operated")
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{address}:9090/api/v1/query", params={"query": query})
    except httpx.HTTPError:
        return []
    return answer.json().get("data", {}).get("result", [])


async def test_pods_are_scraped_and_rules_evaluated_and_both_follow_changes(cluster: RunningCluster) -> None:
    cluster.apply(workload())
    relabelings = [{"action": "labeldrop", "regex": "secret"}]
    cluster.apply(pod_monitor(metricRelabelings=relabelings))
    cluster.apply(rule("kilo_test * 6"))
    found: list[Any] = []
    for expression, wanted in (("kilo_test * 6", "42"), ("kilo_test * 3", "21")):
        cluster.apply(rule(expression))
        while not found or found[0]["value"][1] != wanted:
            found = await value(cluster, "kilo:test")
            await eventually(lambda: True)
    series = (await value(cluster, "kilo_test"))[0]["metric"]
    assert series["job"] == "web"
    assert (series["namespace"], series["container"]) == (NAMESPACE, "main")
    assert "secret" not in series


async def test_prometheus_goes_with_the_last_monitor(cluster: RunningCluster) -> None:
    cluster.apply(pod_monitor())
    await eventually(lambda: list(cluster.store.list("v1", "Pod", "monitoring")))
    cluster.store.remove(next(key for key in cluster.store.all_keys() if key.kind == "PodMonitor"))
    await eventually(
        lambda: not [k for k in cluster.store.all_keys() if "monitoring" in (k.namespace, k.name)]
    )


async def test_what_is_rendered_is_what_promtool_takes(cluster: RunningCluster, tmp_path: Path) -> None:
    cluster.apply(workload())
    cluster.apply(
        named(
            "Service",
            "web",
            spec={"selector": {"app": "web"}, "ports": [{"name": "m", "port": 80, "targetPort": "http"}]},
        )
    )
    cluster.apply(
        pod_monitor(relabelings=[{"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "who"}])
    )
    cluster.apply(
        custom("ServiceMonitor", "web", selector={}, endpoints=[{"port": "m", "honorLabels": True}])
    )
    cluster.apply(rule("sum(up)"))
    await eventually(lambda: cluster.status("Deployment", "web").get("availableReplicas"))
    files = render(cluster.store)
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("/etc/prometheus/config", str(tmp_path)))
    promtool = await asyncio.create_subprocess_exec(
        toolchain.path("promtool"),
        "check",
        "config",
        tmp_path / "prometheus.yaml",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await promtool.communicate()
    assert promtool.returncode == 0, said.decode()
    jobs = {job["job_name"]: job for job in yaml.safe_load(files["prometheus.yaml"])["scrape_configs"]}
    assert jobs["PodMonitor/shop/all/0"]["relabel_configs"][0]["target_label"] == "who"
    target = yaml.safe_load(files["targets.ServiceMonitor.shop.web.0.json"])[0]
    assert (target["labels"]["service"], target["labels"]["endpoint"]) == ("web", "m")
    assert target["targets"] == [f"{cluster.pods()[0]['status']['podIP']}:8000"]


def firing(condition: str) -> Object:
    """A rule whose alert fires for as long as ``condition`` gives something."""
    alert = {"alert": "Lasting", "expr": condition, "labels": {"namespace": NAMESPACE, "severity": "page"}}
    return custom("PrometheusRule", "alerts", groups=[{"name": "a", "interval": "1s", "rules": [alert]}])


def told(secret: str) -> Object:
    """Where the namespace's alerts go."""
    waits = {"groupWait": "1s", "groupInterval": "1s", "repeatInterval": "1h"}
    hook = {"urlSecret": {"name": secret, "key": "url"}, "sendResolved": True}
    route = custom(
        "AlertmanagerConfig",
        "all",
        route={"receiver": "webhook", **waits},
        receivers=[{"name": "webhook", "webhookConfigs": [hook]}],
    )
    return {**route, "apiVersion": "monitoring.coreos.com/v1alpha1"}


async def test_what_fires_is_told_beside_until_it_is_over(cluster: RunningCluster) -> None:
    cluster.apply(told("nobodys"))
    cluster.apply(firing("vector(1)"))
    await eventually(lambda: notified(cluster)[:1] == [("firing", "Lasting")])
    cluster.apply(firing("vector(1) > 1"))
    await eventually(lambda: notified(cluster)[-1:] == [("resolved", "Lasting")])


def notified(cluster: RunningCluster) -> list[tuple[str, str]]:
    """What the receiver beside Alertmanager was told, by its log."""
    pods = list(cluster.store.list("v1", "Pod", "monitoring"))
    for pod in pods:
        if pod["metadata"]["name"].startswith("alertmanager"):
            text = cluster.cluster.node.logs.read(pod, container="receiver", lines=None, previous=False)
            lines = (json.loads(line) for line in text.splitlines())
            return [(line["status"], line["alert"]) for line in lines]
    return []


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a receiver, and what it is told."""
    notifications: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notifications.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token-of-ours", notifications
    server.shutdown()


async def test_alerts_go_where_the_secret_says_and_the_address_is_kept_secret(
    cluster: RunningCluster, webhook: tuple[str, list[Any]]
) -> None:
    url, notifications = webhook
    cluster.apply(named("Secret", "ours", data={"url": base64.b64encode(url.encode()).decode()}))
    cluster.apply(told("ours"))
    cluster.apply(firing("vector(1)"))
    await eventually(lambda: notifications)
    assert notifications[0]["alerts"][0]["labels"]["alertname"] == "Lasting"
    assert notified(cluster) == []
    for key in cluster.store.all_keys():
        assert "token-of-ours" not in json.dumps(cluster.store.get(key)), key
    cluster.apply(named("Secret", "ours", data={"url": base64.b64encode(b"http://127.0.0.1:9/").decode()}))
    await eventually(lambda: b"127.0.0.1:9/" in rendered(cluster))


def rendered(cluster: RunningCluster) -> bytes:
    """Alertmanager's configuration."""
    secret = cluster.store.get(Key("v1", "Secret", "monitoring", "alertmanager-kilo"))
    return base64.b64decode(secret["data"]["alertmanager.yaml"]) if secret else b""


async def test_alertmanager_goes_with_the_last_route(cluster: RunningCluster) -> None:
    cluster.apply(pod_monitor())
    cluster.apply(told("nobodys"))
    await eventually(lambda: len(list(cluster.store.list("v1", "Pod", "monitoring"))) == 2)
    key = next(key for key in cluster.store.all_keys() if key.kind == "AlertmanagerConfig")
    cluster.store.remove(key)
    # What it has stored stays, as claims of a StatefulSet do.
    await eventually(
        lambda: (
            {k.kind for k in cluster.store.all_keys() if "alertmanager" in k.name}
            == {"PersistentVolumeClaim"}
        )
    )
    assert list(cluster.store.list("v1", "Pod", "monitoring"))
