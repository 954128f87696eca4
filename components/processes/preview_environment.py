"""A short-lived environment for one service's image: its own namespace, with a ceiling on what it takes.

It reaches nothing of the stage and nothing reaches it but the cluster's ingress. When the preview
leaves the configuration, everything goes with its namespace; the expiry date is a label for whoever
collects forgotten ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.pods.access import AccessArgs, From
from components.pods.labels import labels
from components.pods.pod import HttpCheck, PodArgs, Scratch
from components.pods.workload import Workload, WorkloadArgs


@dataclass(frozen=True)
class PreviewEnvironmentArgs:
    """What is shown, and until when."""

    image: str
    port: int
    expires_on: str
    cpu_millicores: int = 500
    memory_mebibytes: int = 512


class PreviewEnvironment(pulumi.ComponentResource):
    """Namespace, quota, default deny, and the service."""

    url: str

    def __init__(
        self, name: str, args: PreviewEnvironmentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:preview:PreviewEnvironment", name, {}, opts)
        environment = f"preview-{name}"
        namespace = core.v1.Namespace(
            environment,
            metadata=meta.v1.ObjectMetaArgs(
                name=environment,
                labels={
                    **labels(environment),
                    "kilo.dev/expires-on": args.expires_on,
                    "pod-security.kubernetes.io/enforce": "restricted",
                },
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        core.v1.ResourceQuota(
            environment,
            metadata=meta.v1.ObjectMetaArgs(
                name="ceiling", namespace=environment, labels=labels(environment)
            ),
            spec=core.v1.ResourceQuotaSpecArgs(
                # Twice what it runs with: a rolling update has both versions for a moment.
                hard={
                    "requests.cpu": f"{2 * args.cpu_millicores}m",
                    "requests.memory": f"{2 * args.memory_mebibytes}Mi",
                    "pods": "4",
                }
            ),
            opts=inside,
        )
        networking.v1.NetworkPolicy(
            environment,
            metadata=meta.v1.ObjectMetaArgs(
                name="deny-by-default", namespace=environment, labels=labels(environment)
            ),
            spec=networking.v1.NetworkPolicySpecArgs(
                pod_selector=meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
            ),
            opts=inside,
        )
        workload = Workload(
            environment,
            WorkloadArgs(
                access=AccessArgs(namespace=environment, ingress=[From(port=args.port, anywhere=True)]),
                pod=PodArgs(
                    image=args.image,
                    arguments=[],
                    environment={"PORT": str(args.port)},
                    scratch=[Scratch("/tmp", 64)],  # noqa: S108  the pod's own
                    ports={"http": args.port},
                    alive=HttpCheck("/livez", "http"),
                    ready=HttpCheck("/readyz", "http"),
                    cpu_millicores=args.cpu_millicores,
                    memory_mebibytes=args.memory_mebibytes,
                ),
                replicas=1,
                service_ports={"http": args.port},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[namespace]),
        )
        self.url = f"http://{workload.host}:{args.port}"
        self.register_outputs({"url": self.url})
