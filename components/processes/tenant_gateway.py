"""The entrance: Envoy with every tenant's routes, weights, limits and timeouts.

All that changes while it runs is in files that Envoy watches, so a new tenant or a ramp step drops
no request and needs no new pod. What it reads only at its start is in a checksum on the pods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from components.pods.access import AccessArgs, From, To
from components.pods.labels import labels, service_host
from components.pods.pod import ConfigFiles, HttpCheck, PodArgs
from components.pods.workload import Workload, WorkloadArgs
from kilo.tenancy import Tenant
from kilo.traffic.envoy import BOOTSTRAP_FILE, container_args, render_files
from kilo.traffic.features import NextService
from kilo.traffic.settings import CONFIG_DIRECTORY, GatewaySettings

OPERATIONS = "operations"
LISTENER_PORT = 10_080


def gateway_url(name: str, namespace: str) -> str:
    """The URL by which the gateway ``name`` is reached from within the cluster."""
    return f"http://{service_host(name, namespace)}:{LISTENER_PORT}"


@dataclass(frozen=True)
class TenantGatewayArgs:
    """The tenants, the services behind, and how many gateways share the work."""

    namespace: str
    image: str
    tenants: Sequence[Tenant]
    settings: GatewaySettings
    upstreams: Sequence[str]
    """The workloads behind."""
    monitoring_namespace: str
    services: Sequence[NextService] = ()
    """What else it leads to: next versions that others deploy."""


class TenantGateway(pulumi.ComponentResource):
    """Envoy and its configuration."""

    def __init__(
        self, name: str, args: TenantGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:traffic:TenantGateway", name, {}, opts)
        config_map = f"{name}-envoy"
        files = render_files(args.tenants, args.settings)
        # A pod is replaced, never restarted in place: no shared memory, no sockets beside the listeners.
        arguments = [*container_args(args.tenants, args.settings), "--disable-hot-restart"]
        config = core.v1.ConfigMap(
            config_map,
            metadata=meta.v1.ObjectMetaArgs(name=config_map, namespace=args.namespace, labels=labels(name)),
            data=files,
            opts=pulumi.ResourceOptions(parent=self),
        )
        ports = {"http": args.settings.listener_port, OPERATIONS: args.settings.operations_port}
        Workload(
            name,
            WorkloadArgs(
                access=AccessArgs(
                    namespace=args.namespace,
                    ingress=[
                        From(port=args.settings.listener_port, anywhere=True),
                        From(port=args.settings.operations_port, namespace=args.monitoring_namespace),
                    ],
                    egress=[
                        *(
                            To(port=args.settings.stable.port, workload=upstream)
                            for upstream in args.upstreams
                        ),
                        *(
                            To(port=service.port, workload=service.name, namespace=service.namespace)
                            for service in args.services
                        ),
                    ],
                ),
                pod=PodArgs(
                    image=args.image,
                    command=["envoy"],
                    arguments=arguments,
                    files=[ConfigFiles(config_map, CONFIG_DIRECTORY)],
                    ports=ports,
                    alive=HttpCheck("/livez", OPERATIONS),
                    ready=HttpCheck("/readyz", OPERATIONS),
                    cpu_millicores=500,
                    memory_mebibytes=1_280,
                    annotations={
                        "kilo.dev/bootstrap-checksum": hashlib.sha256(
                            files[BOOTSTRAP_FILE].encode()
                        ).hexdigest()
                    },
                ),
                replicas=args.settings.replicas,
                service_ports={"http": args.settings.listener_port},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config]),
        )
        self.register_outputs({"url": gateway_url(name, args.namespace)})
