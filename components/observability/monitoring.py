"""What is measured, alerted on and shown: scrape targets, rules, alert routes and dashboards.

For the Prometheus operator and Grafana's dashboard sidecar, which the cluster brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes import apiextensions, core, meta

from components.pods.labels import NAME_LABEL, PART_OF, PART_OF_LABEL, labels

OPERATOR_API = "monitoring.coreos.com/v1"
ROUTES_API = "monitoring.coreos.com/v1alpha1"
SCRAPE_SECONDS = 15


@dataclass(frozen=True)
class MonitoringArgs:
    """What is rendered elsewhere, and where it goes."""

    namespace: str
    rules: Mapping[str, Any]
    """The ``spec`` of a PrometheusRule."""
    dashboards: Mapping[str, str]
    """Grafana dashboards, as JSON by file name."""
    alert_routes: Mapping[str, Any] | None
    """The ``spec`` of an AlertmanagerConfig; ``None`` where nobody is told."""
    gateway: str
    """The workload that is Envoy."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """On every monitor, rule and route besides their own: what the cluster's operator selects them by."""
    gateway_scrape_seconds: int = SCRAPE_SECONDS
    gateway_usage_port: str | None = None
    """The port of the collector beside a gateway, where there is one."""


class Monitoring(pulumi.ComponentResource):
    """PodMonitors, PrometheusRule, AlertmanagerConfig and dashboards."""

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:observability:Monitoring", name, {}, opts)
        self._name, self._args = name, args
        self._scrape(
            "processes", {PART_OF_LABEL: PART_OF}, port="http", path="/metrics", exclude=args.gateway
        )
        self._scrape(
            "gateway",
            {NAME_LABEL: args.gateway},
            port="operations",
            path="/metrics",
            seconds=args.gateway_scrape_seconds,
        )
        if args.gateway_usage_port:
            self._scrape("usage", {NAME_LABEL: args.gateway}, port=args.gateway_usage_port, path="/metrics")
        self._object("PrometheusRule", OPERATOR_API, "kilo", args.rules)
        if args.alert_routes:
            self._object("AlertmanagerConfig", ROUTES_API, "kilo", args.alert_routes)
        for file, dashboard in args.dashboards.items():
            config_map = f"dashboard-{file.removesuffix('.json')}"
            core.v1.ConfigMap(
                f"{name}-{config_map}",
                metadata=meta.v1.ObjectMetaArgs(
                    name=config_map,
                    namespace=args.namespace,
                    labels={**labels(config_map), "grafana_dashboard": "1"},
                ),
                data={file: dashboard},
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})

    def _scrape(
        self,
        name: str,
        pods: Mapping[str, str],
        *,
        port: str,
        path: str,
        exclude: str | None = None,
        seconds: int = SCRAPE_SECONDS,
    ) -> None:
        selected: dict[str, Any] = {"matchLabels": dict(pods)}
        if exclude:
            selected["matchExpressions"] = [{"key": NAME_LABEL, "operator": "NotIn", "values": [exclude]}]
        self._object(
            "PodMonitor",
            OPERATOR_API,
            name,
            {
                "jobLabel": NAME_LABEL,
                "selector": selected,
                "podMetricsEndpoints": [{"port": port, "path": path, "interval": f"{seconds}s"}],
            },
        )

    def _object(self, kind: str, api_version: str, name: str, spec: Mapping[str, Any]) -> None:
        apiextensions.CustomResource(
            f"{self._name}-{kind.lower()}-{name}",
            api_version=api_version,
            kind=kind,
            metadata=meta.v1.ObjectMetaArgs(
                name=name,
                namespace=self._args.namespace,
                labels={**self._args.labels, **labels(name)},
            ),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self),
        )
