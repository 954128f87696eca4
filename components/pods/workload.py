"""A service that runs as interchangeable pods: a Deployment with everything that production needs around it.

A new version is ready before an old pod stops. A drained node takes at most one pod at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from components.pods.access import Access, AccessArgs
from components.pods.labels import labels, selector, service_host
from components.pods.pod import PodArgs, pod_template

NOTICE_SECONDS = 5
"""What proxies and resolvers take to notice that a pod goes; until then it is sent new connections."""


@dataclass(frozen=True)
class WorkloadArgs:
    """The pods, how many of them, and the ports by which others reach them."""

    access: AccessArgs
    pod: PodArgs
    replicas: int
    service_ports: Mapping[str, int] = field(default_factory=dict[str, int])
    """Port names of the pod, and the Service's port for each. Empty: no Service."""


class Workload(pulumi.ComponentResource):
    """ServiceAccount, NetworkPolicy, Deployment, PodDisruptionBudget and Service."""

    host: str
    """The Service's full name; meaningless without ``service_ports``."""

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:cluster:Workload", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        metadata = meta.v1.ObjectMetaArgs(name=name, namespace=args.access.namespace, labels=labels(name))
        access = Access(name, args.access, opts=child)
        pod = args.pod
        if args.service_ports and pod.before_stop is None:
            pod = replace(pod, before_stop=NOTICE_SECONDS)
        apps.v1.Deployment(
            name,
            metadata=metadata,
            spec=apps.v1.DeploymentSpecArgs(
                replicas=args.replicas,
                revision_history_limit=3,
                selector=meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=pod_template(name, pod),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[access]),
        )
        policy.v1.PodDisruptionBudget(
            name,
            metadata=metadata,
            spec=policy.v1.PodDisruptionBudgetSpecArgs(
                max_unavailable=1, selector=meta.v1.LabelSelectorArgs(match_labels=selector(name))
            ),
            opts=child,
        )
        self.host = service_host(name, args.access.namespace)
        if args.service_ports:
            core.v1.Service(
                name,
                metadata=metadata,
                spec=core.v1.ServiceSpecArgs(
                    type="ClusterIP",
                    selector=selector(name),
                    ports=[
                        core.v1.ServicePortArgs(name=port, port=number, target_port=port, protocol="TCP")
                        for port, number in args.service_ports.items()
                    ],
                ),
                opts=child,
            )
        self.register_outputs({"host": self.host})
