"""What counts tenants' limits over all gateways: Envoy's rate limit service and its store.

Only gateways reach the service and only the service its store, by network policy; a tenant's name and a
count are all that passes, unencrypted. While either is away, gateways keep their equal parts, so one store
that keeps nothing is enough.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pulumi

from components.pods.access import AccessArgs, From, To
from components.pods.config_map import config_map
from components.pods.labels import service_host
from components.pods.pod import CommandCheck, ConfigFiles, HttpCheck, PodArgs
from components.pods.workload import Workload, WorkloadArgs
from kilo.traffic.limit_service import (
    CONFIG_DIRECTORY,
    HEALTH_PORT,
    METRICS_DIRECTORY,
    METRICS_PORT,
    SERVICE_PORT,
    STORE_PORT,
    render_config,
    render_mapping,
    service_environment,
    store_arguments,
)

_POD_ADDRESS = "$(POD_IP)"
_STORE_MEBIBYTES = 128
# As a hanging store answers no connection that the kernel has accepted for it.
_STORE_ANSWERS = CommandCheck(("sh", "-c", 'test "$(valkey-cli -h "$POD_IP" ping)" = PONG'))


def store_of(name: str) -> str:
    """What the store of the service ``name`` is called."""
    return f"{name}-store"


@dataclass(frozen=True)
class RateLimitsArgs:
    """The service, its store and who asks."""

    namespace: str
    image: str
    store_image: str
    replicas: int
    """Of the service; any number of them shares one store."""
    gateway: str
    """The workload whose limits are counted."""
    monitoring_namespace: str


class RateLimits(pulumi.ComponentResource):
    """The service with its configuration, and its store."""

    def __init__(self, name: str, args: RateLimitsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:traffic:RateLimits", name, {}, opts)
        store = store_of(name)
        stored = Workload(
            store,
            WorkloadArgs(
                access=AccessArgs(namespace=args.namespace, ingress=[From(port=STORE_PORT, workload=name)]),
                pod=PodArgs(
                    image=args.store_image,
                    arguments=store_arguments(_POD_ADDRESS, megabytes=_STORE_MEBIBYTES // 2),
                    ports={"store": STORE_PORT},
                    alive=_STORE_ANSWERS,
                    ready=_STORE_ANSWERS,
                    cpu_millicores=100,
                    memory_mebibytes=_STORE_MEBIBYTES,
                ),
                replicas=1,
                service_ports={"store": STORE_PORT},
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        files = {
            ConfigFiles(f"{name}-config", CONFIG_DIRECTORY): render_config(),
            ConfigFiles(f"{name}-metrics", METRICS_DIRECTORY): render_mapping(),
        }
        written = [
            config_map(name, str(each.config_map), args.namespace, data, self) for each, data in files.items()
        ]
        Workload(
            name,
            WorkloadArgs(
                access=AccessArgs(
                    namespace=args.namespace,
                    ingress=[
                        From(port=SERVICE_PORT, workload=args.gateway),
                        From(port=METRICS_PORT, namespace=args.monitoring_namespace),
                    ],
                    egress=[To(port=STORE_PORT, workload=store)],
                ),
                pod=PodArgs(
                    image=args.image,
                    command=["ratelimit"],
                    arguments=[],
                    environment=service_environment(
                        _POD_ADDRESS, f"{service_host(store, args.namespace)}:{STORE_PORT}"
                    ),
                    files=list(files),
                    ports={"grpc": SERVICE_PORT, "health": HEALTH_PORT, "http": METRICS_PORT},
                    alive=HttpCheck("/healthcheck", "health"),
                    ready=HttpCheck("/healthcheck", "health"),
                    cpu_millicores=100,
                    memory_mebibytes=128,
                    # What becomes of its statistics is read once.
                    annotations={
                        "kilo.dev/config-checksum": hashlib.sha256(repr(files).encode()).hexdigest()
                    },
                ),
                replicas=args.replicas,
                service_ports={"grpc": SERVICE_PORT},
            ),
            # It ends if there is no store when it starts.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[stored, *written]),
        )
        self.register_outputs({"host": service_host(name, args.namespace)})
