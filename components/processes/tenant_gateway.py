"""The entrance: Envoy with every tenant's routes, weights, limits and timeouts.

All that changes while it runs is in files that Envoy watches, so a new tenant or a ramp step drops
no request and needs no new pod. What it reads only at its start is in a checksum on the pods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.pods.access import AccessArgs, From, To
from components.pods.config_map import config_map
from components.pods.labels import service_host
from components.pods.pod import ConfigFiles, HttpCheck, PodArgs, SecretFiles
from components.pods.workload import Workload, WorkloadArgs
from components.processes.usage import COLLECTOR, DIRECTORY, CollectorArgs, collector_access, collector_pod
from kilo.tenancy import Tenant
from kilo.traffic.draining import DRAIN_PATH
from kilo.traffic.envoy import BOOTSTRAP_FILE, container_args, render_files
from kilo.traffic.features import NextService
from kilo.traffic.settings import CONFIG_DIRECTORY, GatewaySettings
from kilo.traffic.tls import CLIENT_CA_DIRECTORY, TLS_DIRECTORY
from kilo.traffic.verification import key_addresses

OPERATIONS = "operations"
DRAIN = "drain"
LISTENER_PORT = 10_080


def gateway_url(name: str, namespace: str, *, tls: bool = False) -> str:
    """The URL by which the gateway ``name`` is reached from within the cluster."""
    return f"{'https' if tls else 'http'}://{service_host(name, namespace)}:{LISTENER_PORT}"


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
    usage: CollectorArgs | None = None
    """Who reads what it writes to ``settings.usage_log``."""


class TenantGateway(pulumi.ComponentResource):
    """Envoy and its configuration."""

    def __init__(
        self, name: str, args: TenantGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:traffic:TenantGateway", name, {}, opts)
        config_name = f"{name}-envoy"
        files = render_files(args.tenants, args.settings)
        # A pod is replaced, never restarted in place: no shared memory, no sockets beside the listeners.
        arguments = [*container_args(args.tenants, args.settings), "--disable-hot-restart"]
        config = config_map(name, config_name, args.namespace, files, self)
        ports = {
            "http": args.settings.listener_port,
            OPERATIONS: args.settings.operations_port,
            DRAIN: args.settings.drain_port,
        }
        usage = [collector_access(args.usage, args.monitoring_namespace)] if args.usage else []
        Workload(
            name,
            WorkloadArgs(
                access=AccessArgs(
                    namespace=args.namespace,
                    ingress=[
                        From(port=args.settings.listener_port, anywhere=True),
                        From(port=args.settings.operations_port, namespace=args.monitoring_namespace),
                        *(asked for asked, _ in usage),
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
                        *_keys(args.settings),
                        *(reached for _, reached in usage),
                    ],
                ),
                pod=PodArgs(
                    image=args.image,
                    command=["envoy"],
                    arguments=arguments,
                    files=[ConfigFiles(config_name, CONFIG_DIRECTORY), *_certificates(args.settings)],
                    scratch=[DIRECTORY] if args.usage else [],
                    sidecars={COLLECTOR: collector_pod(args.usage)} if args.usage else {},
                    ports=ports,
                    alive=HttpCheck("/livez", OPERATIONS),
                    ready=HttpCheck("/readyz", OPERATIONS),
                    before_stop=HttpCheck(DRAIN_PATH, DRAIN),
                    stop_seconds=args.settings.drain_seconds + 15,
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
        self.register_outputs({"url": gateway_url(name, args.namespace, tls=args.settings.tls is not None)})


def _certificates(settings: GatewaySettings) -> list[SecretFiles]:
    found = [SecretFiles(settings.tls.secret, TLS_DIRECTORY)] if settings.tls else []
    if settings.identity and (clients := settings.identity.client_certificate):
        found.append(SecretFiles(clients.ca_secret, CLIENT_CA_DIRECTORY))
    return found


def _keys(settings: GatewaySettings) -> list[To]:
    """Where the keys of tokens are read from, which is outside and has no address that stays."""
    return [To(port=port, network="0.0.0.0/0") for _, port in key_addresses(settings)]
