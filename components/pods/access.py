"""What surrounds a workload's pods: their ServiceAccount and the network that they may use.

A namespace denies all traffic (see :mod:`components.pods.stage_namespace`); a workload opens what it
names, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.clouds.cloud_identity import CloudIdentity
from components.pods.labels import labels, selector

DNS_PORT = 53
CLOUD_APIS_PORT = 443
# The node's metadata service hands out the node's own credentials.
METADATA_SERVICE = "169.254.169.254/32"


@dataclass(frozen=True)
class From:
    """Pods that may connect to a port of this workload. Without ``workload``, all of ``namespace``."""

    port: int
    workload: str | None = None
    namespace: str | None = None
    """``None``: the workload's own namespace."""
    anywhere: bool = False
    """Traffic from outside the cluster, such as a load balancer's."""


@dataclass(frozen=True)
class To:
    """What this workload may connect to: another workload, or a network outside the cluster."""

    port: pulumi.Input[int]
    workload: str | None = None
    namespace: str | None = None
    network: str | None = None


CLOUD_APIS = To(port=CLOUD_APIS_PORT, network="0.0.0.0/0")


@dataclass(frozen=True)
class AccessArgs:
    """A workload's identity and network."""

    namespace: str
    identity: CloudIdentity | None = None
    ingress: Sequence[From] = ()
    egress: Sequence[To] = ()


class Access(pulumi.ComponentResource):
    """ServiceAccount and NetworkPolicy of one workload."""

    service_account: pulumi.Output[str]

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:cluster:Access", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        annotations: dict[str, pulumi.Input[str]] = {}
        if args.identity:
            annotations["eks.amazonaws.com/role-arn"] = args.identity.role_arn
        account = core.v1.ServiceAccount(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=name, namespace=args.namespace, labels=labels(name), annotations=annotations
            ),
            automount_service_account_token=False,
            opts=child,
        )
        networking.v1.NetworkPolicy(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=labels(name)),
            spec=networking.v1.NetworkPolicySpecArgs(
                pod_selector=meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                policy_types=["Ingress", "Egress"],
                ingress=[_ingress(source) for source in args.ingress],
                egress=[_dns(), *(_egress(target) for target in args.egress)],
            ),
            opts=child,
        )
        self.service_account = account.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"service_account": self.service_account})


def _ingress(source: From) -> networking.v1.NetworkPolicyIngressRuleArgs:
    return networking.v1.NetworkPolicyIngressRuleArgs(
        from_=None if source.anywhere else [_pods(source.workload, source.namespace)],
        ports=[networking.v1.NetworkPolicyPortArgs(port=source.port, protocol="TCP")],
    )


def _egress(target: To) -> networking.v1.NetworkPolicyEgressRuleArgs:
    peer = (
        networking.v1.NetworkPolicyPeerArgs(
            ip_block=networking.v1.IPBlockArgs(
                cidr=target.network, except_=[METADATA_SERVICE] if target.network == "0.0.0.0/0" else None
            )
        )
        if target.network
        else _pods(target.workload, target.namespace)
    )
    return networking.v1.NetworkPolicyEgressRuleArgs(
        to=[peer], ports=[networking.v1.NetworkPolicyPortArgs(port=target.port, protocol="TCP")]
    )


def _dns() -> networking.v1.NetworkPolicyEgressRuleArgs:
    return networking.v1.NetworkPolicyEgressRuleArgs(
        to=[_pods(None, "kube-system")],
        ports=[
            networking.v1.NetworkPolicyPortArgs(port=DNS_PORT, protocol=protocol)
            for protocol in ("UDP", "TCP")
        ],
    )


def _pods(workload: str | None, namespace: str | None) -> networking.v1.NetworkPolicyPeerArgs:
    return networking.v1.NetworkPolicyPeerArgs(
        pod_selector=meta.v1.LabelSelectorArgs(match_labels=selector(workload)) if workload else None,
        namespace_selector=meta.v1.LabelSelectorArgs(match_labels={"kubernetes.io/metadata.name": namespace})
        if namespace
        else None,
    )
