"""A service whose pods have a name and mostly a disk each: a StatefulSet with everything around it.

Used where identity matters: the members of a NATS cluster, and change capture, of which there are never two.

The disks' claims are the program's own, by the very names that the StatefulSet looks for: so a disk grows in
place where its storage class allows it. Its template of claims can't change; a new one would take all pods
away at once and leave the disks as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from components.pods.access import Access, AccessArgs
from components.pods.labels import labels, selector
from components.pods.pod import PodArgs, pod_template

_DATA = "data"
# Many storage classes bind a claim with its first pod, so nothing may wait for it before; and the claim of a
# stage from before is the StatefulSet's, which made it by the template.
_ADOPTED = {"pulumi.com/skipAwait": "true", "pulumi.com/patchForce": "true"}


def headless(name: str) -> str:
    """The Service that gives each pod of the workload ``name`` a name of its own."""
    return f"{name}-headless"


@dataclass(frozen=True)
class Disk:
    """Each pod's own volume."""

    directory: str
    size_gibibytes: int
    storage_class: str | None = None
    kept: bool = True
    """Whether what it holds stays when the program has its pod no more, or would have it anew."""


@dataclass(frozen=True)
class StatefulWorkloadArgs:
    """The pods, how many, their disk if they have one, and the ports by which others reach them."""

    access: AccessArgs
    pod: PodArgs
    replicas: int
    disk: Disk | None
    service_ports: Mapping[str, int] = field(default_factory=dict[str, int])


class StatefulWorkload(pulumi.ComponentResource):
    """ServiceAccount, NetworkPolicy, StatefulSet, PodDisruptionBudget and Services."""

    def __init__(
        self, name: str, args: StatefulWorkloadArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:cluster:StatefulWorkload", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        metadata = meta.v1.ObjectMetaArgs(name=name, namespace=args.access.namespace, labels=labels(name))
        access = Access(name, args.access, opts=child)
        members = core.v1.Service(
            headless(name),
            metadata=meta.v1.ObjectMetaArgs(
                name=headless(name), namespace=args.access.namespace, labels=labels(name)
            ),
            spec=core.v1.ServiceSpecArgs(
                cluster_ip="None",
                selector=selector(name),
                # Members find each other before they are ready.
                publish_not_ready_addresses=True,
                ports=[
                    core.v1.ServicePortArgs(name=port, port=number, target_port=port, protocol="TCP")
                    for port, number in args.pod.ports.items()
                ],
            ),
            opts=child,
        )
        disk = args.disk
        claims = (
            [self._claim(name, number, disk, args.access.namespace) for number in range(args.replicas)]
            if disk
            else []
        )
        apps.v1.StatefulSet(
            name,
            metadata=metadata,
            spec=apps.v1.StatefulSetSpecArgs(
                replicas=args.replicas,
                service_name=headless(name),
                pod_management_policy="Parallel",
                selector=meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                update_strategy=apps.v1.StatefulSetUpdateStrategyArgs(type="RollingUpdate"),
                template=pod_template(
                    name,
                    args.pod,
                    volume_mounts=[core.v1.VolumeMountArgs(name=_DATA, mount_path=disk.directory)]
                    if disk
                    else [],
                ),
                volume_claim_templates=[
                    core.v1.PersistentVolumeClaimArgs(
                        metadata=meta.v1.ObjectMetaArgs(name=_DATA), spec=_claim_spec(disk)
                    )
                ]
                if disk
                else None,
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[access, members, *claims],
                ignore_changes=["spec.volumeClaimTemplates"] if disk else [],
            ),
        )
        policy.v1.PodDisruptionBudget(
            name,
            metadata=metadata,
            spec=policy.v1.PodDisruptionBudgetSpecArgs(
                max_unavailable=1, selector=meta.v1.LabelSelectorArgs(match_labels=selector(name))
            ),
            opts=child,
        )
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
        self.register_outputs({})

    def _claim(
        self, name: str, number: int, disk: Disk, namespace: pulumi.Input[str]
    ) -> core.v1.PersistentVolumeClaim:
        claim = f"{_DATA}-{name}-{number}"
        return core.v1.PersistentVolumeClaim(
            claim,
            metadata=meta.v1.ObjectMetaArgs(
                name=claim,
                namespace=namespace,
                labels=labels(name),
                annotations=_ADOPTED,
            ),
            spec=_claim_spec(disk),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=disk.kept),
        )


def _claim_spec(disk: Disk) -> core.v1.PersistentVolumeClaimSpecArgs:
    return core.v1.PersistentVolumeClaimSpecArgs(
        access_modes=["ReadWriteOnce"],
        storage_class_name=disk.storage_class,
        resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": f"{disk.size_gibibytes}Gi"}),
    )
