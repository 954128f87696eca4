"""The OpenTelemetry collector that every process of the stage sends its spans to.

One pod, since a trace is decided where all of it is; while it is away the processes drop spans and work on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.pods.access import CLOUD_APIS, AccessArgs, From
from components.pods.config_map import config_map
from components.pods.pod import ConfigFiles, HttpCheck, PodArgs, Scratch
from components.pods.workload import Workload, WorkloadArgs
from kilo.observe.collector import (
    HEALTH_PORT,
    METRICS_PORT,
    OTLP_PORT,
    TRACES_DIRECTORY,
    CollectorSettings,
    render_collector,
)
from kilo.tenancy import Tenant

_DIRECTORY = "/etc/otelcol"
_FILE = "config.json"


@dataclass(frozen=True)
class TraceCollectorArgs:
    """The tenants, and where their traces go."""

    namespace: str
    image: str
    tenants: Sequence[Tenant]
    settings: CollectorSettings
    senders: Sequence[str]
    """The workloads that send spans."""
    monitoring_namespace: str


class TraceCollector(pulumi.ComponentResource):
    """The collector and its configuration."""

    def __init__(
        self, name: str, args: TraceCollectorArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:observability:TraceCollector", name, {}, opts)
        text = json.dumps(render_collector(args.tenants, args.settings), separators=(",", ":"))
        config = config_map(name, name, args.namespace, {_FILE: text}, self)
        Workload(
            name,
            WorkloadArgs(
                access=AccessArgs(
                    namespace=args.namespace,
                    ingress=[
                        *(From(port=OTLP_PORT, workload=sender) for sender in args.senders),
                        From(port=METRICS_PORT, namespace=args.monitoring_namespace),
                    ],
                    egress=[CLOUD_APIS] if args.settings.backend_url else [],
                ),
                pod=PodArgs(
                    image=args.image,
                    arguments=["--config", f"{_DIRECTORY}/{_FILE}"],
                    files=[ConfigFiles(name, _DIRECTORY)],
                    scratch=[Scratch(TRACES_DIRECTORY, 512)],
                    ports={"otlp": OTLP_PORT, "health": HEALTH_PORT, "http": METRICS_PORT},
                    alive=HttpCheck("/", "health"),
                    ready=HttpCheck("/", "health"),
                    cpu_millicores=250,
                    memory_mebibytes=args.settings.memory_mebibytes,
                    # It reads its configuration once.
                    annotations={"kilo.dev/config-checksum": hashlib.sha256(text.encode()).hexdigest()},
                ),
                replicas=1,
                service_ports={"otlp": OTLP_PORT},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config]),
        )
        self.register_outputs({})
