"""Prometheus configuration from monitors and rules, as the Prometheus operator renders it.

ServiceMonitors and PodMonitors become scrape jobs whose targets are in files beside, so that a pod that
comes or goes changes no configuration. https://prometheus-operator.dev/docs/api-reference/api/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from sandbox.cluster.node.probes import port_of
from sandbox.cluster.objects import Object, labels_of, selects
from sandbox.cluster.store import Store

API = "monitoring.coreos.com/v1"
DIRECTORY = "/etc/prometheus/config"
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9_]")
_CAMEL = re.compile(r"(?<=[a-z])([A-Z])")


def render(store: Store, alertmanager: str | None = None) -> dict[str, str]:
    """All configuration files by name; ``prometheus.yaml`` is the first to be read.

    Args:
        store: holds monitors, rules and what they select.
        alertmanager: host and port of whom alerts are sent to.
    """
    files: dict[str, str] = {}
    jobs: list[Object] = []
    for kind, field, targets in (
        ("ServiceMonitor", "endpoints", _service_targets),
        ("PodMonitor", "podMetricsEndpoints", _pod_targets),
    ):
        for monitor in store.list(API, kind):
            for index, endpoint in enumerate(monitor["spec"].get(field) or ()):
                name = f"{kind}/{monitor['metadata']['namespace']}/{monitor['metadata']['name']}/{index}"
                file = f"targets.{name.replace('/', '.')}.json"
                files[file] = json.dumps(list(targets(store, monitor, endpoint)), indent=1)
                jobs.append(_job(name, endpoint, file))
    for rule in store.list(API, "PrometheusRule"):
        file = f"rules.{rule['metadata']['namespace']}.{rule['metadata']['name']}.yaml"
        files[file] = yaml.safe_dump({"groups": rule["spec"].get("groups") or []}, sort_keys=False)
    configuration: Object = {
        "global": {"scrape_interval": "30s", "evaluation_interval": "15s"},
        "rule_files": [f"{DIRECTORY}/{file}" for file in files if file.startswith("rules.")],
        "scrape_configs": jobs,
    }
    if alertmanager:
        sent = {"api_version": "v2", "static_configs": [{"targets": [alertmanager]}]}
        configuration["alerting"] = {"alertmanagers": [sent]}
    return {"prometheus.yaml": yaml.safe_dump(configuration, sort_keys=False), **files}


def _job(name: str, endpoint: Object, file: str) -> Object:
    job: Object = {"job_name": name, "file_sd_configs": [{"files": [f"{DIRECTORY}/{file}"]}]}
    direct = (
        ("interval", "scrape_interval"),
        ("scrapeTimeout", "scrape_timeout"),
        ("path", "metrics_path"),
        ("scheme", "scheme"),
        ("params", "params"),
        ("honorLabels", "honor_labels"),
        ("honorTimestamps", "honor_timestamps"),
    )
    job |= {theirs: endpoint[ours] for ours, theirs in direct if endpoint.get(ours) is not None}
    for ours, theirs in (("relabelings", "relabel_configs"), ("metricRelabelings", "metric_relabel_configs")):
        if endpoint.get(ours):
            job[theirs] = [_relabeling(rule) for rule in endpoint[ours]]
    return job


def _relabeling(rule: Object) -> Object:
    return {_CAMEL.sub(lambda match: f"_{match[1].lower()}", name): value for name, value in rule.items()}


def _pod_targets(store: Store, monitor: Object, endpoint: Object) -> Iterator[Object]:
    for pod in _selected(store, monitor, "Pod"):
        job = labels_of(pod).get(monitor["spec"].get("jobLabel") or "")
        yield from _targets(pod, monitor, endpoint, job)


def _service_targets(store: Store, monitor: Object, endpoint: Object) -> Iterator[Object]:
    for service in _selected(store, monitor, "Service"):
        metadata, selector = service["metadata"], service["spec"].get("selector")
        ports = {port.get("name"): port["targetPort"] for port in service["spec"].get("ports") or ()}
        target = ports.get(endpoint.get("port")) if endpoint.get("port") else endpoint.get("targetPort")
        if not selector or target is None:
            continue
        job = labels_of(service).get(monitor["spec"].get("jobLabel") or "") or metadata["name"]
        extra = {"service": metadata["name"], "endpoint": str(endpoint.get("port") or target)}
        for pod in store.list("v1", "Pod", metadata["namespace"]):
            if all(labels_of(pod).get(name) == value for name, value in selector.items()):
                for found in _targets(pod, monitor, {**endpoint, "port": target}, job):
                    yield {**found, "labels": {**found["labels"], **extra}}


def _selected(store: Store, monitor: Object, kind: str) -> Iterable[Object]:
    wanted = monitor["spec"].get("namespaceSelector") or {}
    names = wanted.get("matchNames") or [monitor["metadata"]["namespace"]]
    for obj in store.list("v1", kind, None):
        inside = wanted.get("any") or obj["metadata"]["namespace"] in names
        # Unlike elsewhere, an empty selector of a monitor picks everything.
        if inside and selects(monitor["spec"].get("selector") or {}, labels_of(obj)):
            yield obj


def _targets(pod: Object, monitor: Object, endpoint: Object, job: str | None) -> Iterator[Object]:
    metadata, status = pod["metadata"], pod.get("status") or {}
    if status.get("phase") != "Running" or not status.get("podIP"):
        return
    found = _port(pod, endpoint)
    if found is None:
        return
    container, number = found
    place = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    labels = {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "container": container,
        "endpoint": str(endpoint.get("port") or number),
        "job": job or place,
        "__meta_kubernetes_namespace": metadata["namespace"],
        "__meta_kubernetes_pod_name": metadata["name"],
        "__meta_kubernetes_pod_ip": status["podIP"],
    }
    for prefix, values in (("label", labels_of(pod)), ("annotation", metadata.get("annotations") or {})):
        labels |= {f"__meta_kubernetes_pod_{prefix}_{_NOT_LABEL.sub('_', n)}": v for n, v in values.items()}
    for name in monitor["spec"].get("podTargetLabels") or ():
        if name in labels_of(pod):
            labels[_NOT_LABEL.sub("_", name)] = labels_of(pod)[name]
    yield {"targets": [f"{status['podIP']}:{number}"], "labels": labels}


def _port(pod: Object, endpoint: Object) -> tuple[str, int] | None:
    wanted: Any = endpoint.get("port") or endpoint.get("portNumber") or endpoint.get("targetPort")
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]:
        try:
            return container["name"], port_of(wanted, container)
        except (ValueError, TypeError):
            continue
    return None
