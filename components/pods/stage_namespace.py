"""The stage's namespace: nothing may talk to anything in it unless a workload says so.

The namespace enforces the restricted Pod Security Standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), and holds the files that
many pods mount: the stack's outputs, with them the certificates that the database's server is known by, and
how to sign in to Google Cloud without a key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.pods.database_address import CA_FILE
from components.pods.labels import labels
from components.pods.pod import (
    GOOGLE_CREDENTIALS_CONFIG_MAP,
    GOOGLE_CREDENTIALS_FILE,
    GOOGLE_TOKEN_DIRECTORY,
    GOOGLE_TOKEN_FILE,
)

OUTPUTS_CONFIG_MAP = "kilo-outputs"
OUTPUTS_FILE = "outputs.json"
OWNER_LABEL = "kilo.platform/stage"
"""Which stage a namespace is; another one's is never taken over."""


@dataclass(frozen=True)
class StageNamespaceArgs:
    """The namespace's name and what all its pods may read."""

    namespace: str
    stage: str
    outputs_json: pulumi.Input[str]
    google_identity_provider: str
    database_ca: str | None = None
    """Certificates in PEM form by which the database's server is known."""


class StageNamespace(pulumi.ComponentResource):
    """A namespace that denies by default, with the outputs in a ConfigMap."""

    def __init__(
        self, name: str, args: StageNamespaceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:cluster:StageNamespace", name, {}, opts)
        namespace = core.v1.Namespace(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=args.namespace,
                labels={
                    **labels(args.namespace),
                    OWNER_LABEL: args.stage,
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/warn": "restricted",
                },
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        inside = pulumi.ResourceOptions(parent=self, depends_on=[namespace])
        networking.v1.NetworkPolicy(
            f"{name}-deny",
            metadata=meta.v1.ObjectMetaArgs(
                name="deny-by-default", namespace=args.namespace, labels=labels("deny-by-default")
            ),
            spec=networking.v1.NetworkPolicySpecArgs(
                pod_selector=meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
            ),
            opts=inside,
        )
        core.v1.ConfigMap(
            f"{name}-outputs",
            metadata=meta.v1.ObjectMetaArgs(
                name=OUTPUTS_CONFIG_MAP, namespace=args.namespace, labels=labels(OUTPUTS_CONFIG_MAP)
            ),
            data={
                OUTPUTS_FILE: args.outputs_json,
                **({CA_FILE: args.database_ca} if args.database_ca else {}),
            },
            opts=inside,
        )
        core.v1.ConfigMap(
            f"{name}-google-credentials",
            metadata=meta.v1.ObjectMetaArgs(
                name=GOOGLE_CREDENTIALS_CONFIG_MAP,
                namespace=args.namespace,
                labels=labels(GOOGLE_CREDENTIALS_CONFIG_MAP),
            ),
            data={GOOGLE_CREDENTIALS_FILE: _external_account(args.google_identity_provider)},
            opts=inside,
        )
        self.register_outputs({})


def _external_account(provider: str) -> str:
    """How Google's libraries trade the pod's token for an access token. No secret.

    https://google.aip.dev/auth/4117
    """
    return json.dumps(
        {
            "type": "external_account",
            "audience": f"//iam.googleapis.com/{provider}",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": f"{GOOGLE_TOKEN_DIRECTORY}/{GOOGLE_TOKEN_FILE}"},
        },
        indent=1,
    )
