"""A short-lived environment for a service of one pull request: a namespace, with a ceiling on what it takes.

Everything of a preview lies in the namespace and goes with it, its database and its bus too. It reaches
nothing of the stage, and nothing reaches it but its own gateway's clients. Until when it stands is an
annotation, for whoever collects those that are over (``kilo preview collect``).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.pods.labels import labels
from components.pods.stage_namespace import OUTPUTS_CONFIG_MAP, OUTPUTS_FILE

EXPIRES = "kilo.dev/expires-at"


@dataclass(frozen=True)
class PreviewEnvironmentArgs:
    """Its namespace, until when, what its pods may read, and how much they may take."""

    namespace: str
    expires_at: str
    """In UTC, as RFC 3339 has it."""
    outputs_json: pulumi.Input[str]
    cpu_millicores: int = 4_000
    memory_mebibytes: int = 8_192
    pods: int = 24


class PreviewEnvironment(pulumi.ComponentResource):
    """Namespace, quota, limits, default deny, and the outputs that a service reads."""

    def __init__(
        self, name: str, args: PreviewEnvironmentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:preview:PreviewEnvironment", name, {}, opts)
        namespace = core.v1.Namespace(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=args.namespace,
                labels={**labels(args.namespace), "pod-security.kubernetes.io/enforce": "restricted"},
                annotations={EXPIRES: args.expires_at},
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self._inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        memory = f"{args.memory_mebibytes}Mi"
        core.v1.ResourceQuota(
            name,
            metadata=self._metadata("ceiling", args),
            spec=core.v1.ResourceQuotaSpecArgs(
                hard={
                    "requests.cpu": f"{args.cpu_millicores}m",
                    "requests.memory": memory,
                    "limits.memory": memory,
                    "pods": str(args.pods),
                    "persistentvolumeclaims": "2",
                    "requests.storage": "4Gi",
                    "services.loadbalancers": "0",
                    "services.nodeports": "0",
                }
            ),
            opts=self._inside,
        )
        core.v1.LimitRange(
            name,
            metadata=self._metadata("limits", args),
            spec=core.v1.LimitRangeSpecArgs(
                limits=[
                    core.v1.LimitRangeItemArgs(
                        type="Container",
                        default={"memory": "256Mi"},
                        default_request={"cpu": "50m", "memory": "128Mi"},
                        max={"memory": "2Gi"},
                    )
                ]
            ),
            opts=self._inside,
        )
        networking.v1.NetworkPolicy(
            name,
            metadata=self._metadata("deny-by-default", args),
            spec=networking.v1.NetworkPolicySpecArgs(
                pod_selector=meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
            ),
            opts=self._inside,
        )
        core.v1.ConfigMap(
            name,
            metadata=self._metadata(OUTPUTS_CONFIG_MAP, args),
            data={OUTPUTS_FILE: args.outputs_json},
            opts=self._inside,
        )
        self.register_outputs({"namespace": args.namespace})

    @staticmethod
    def _metadata(name: str, args: PreviewEnvironmentArgs) -> meta.v1.ObjectMetaArgs:
        return meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=labels(name))
