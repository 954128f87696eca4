"""The identity of one workload in both clouds, without any long-lived credential.

AWS: an IAM role that only these ServiceAccounts of this cluster can take (IRSA). Google Cloud: the
same ServiceAccounts as principals of a workload identity pool, to which access is given directly;
no Google service account stands in between. What the identity may do is given where the resource
is: :meth:`CloudIdentity.allow` for AWS, IAM members on the resource for Google Cloud.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.clouds.iam import Statement, policy_json


@dataclass(frozen=True)
class CloudIdentityArgs:
    """Who takes the identity, and how both clouds know the cluster."""

    namespace: str
    service_accounts: Sequence[str]
    role_name: str
    oidc_provider_arn: str
    google_identity_provider: str | None = None
    """``projects/N/locations/global/workloadIdentityPools/P/providers/X``, for access to Google Cloud."""
    permissions_boundary: str | None = None
    """The ARN of a policy beyond which the role may do nothing."""


class CloudIdentity(pulumi.ComponentResource):
    """An IAM role and, where asked for, Google Cloud principals for the ServiceAccounts of one process."""

    role_arn: pulumi.Output[str]
    google_identity_provider: str | None
    google_members: Mapping[str, str]
    """The principal of each ServiceAccount, as members of Google's IAM policies are written."""

    def __init__(
        self, name: str, args: CloudIdentityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:identity:CloudIdentity", name, {}, opts)
        self._name = name
        subjects = {
            account: f"system:serviceaccount:{args.namespace}:{account}" for account in args.service_accounts
        }
        self._role = aws.iam.Role(
            name,
            name=args.role_name,
            description=f"Taken by {', '.join(args.service_accounts)} in the namespace {args.namespace}",
            assume_role_policy=_trust(args.oidc_provider_arn, list(subjects.values())),
            max_session_duration=3_600,
            permissions_boundary=args.permissions_boundary,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.role_arn = self._role.arn
        self.google_identity_provider = args.google_identity_provider
        self.google_members = {}
        if args.google_identity_provider:
            pool = args.google_identity_provider.partition("/providers/")[0]
            self.google_members = {
                account: f"principal://iam.googleapis.com/{pool}/subject/{subject}"
                for account, subject in subjects.items()
            }
        self.register_outputs({"role_arn": self.role_arn})

    def allow(self, name: str, statements: Sequence[Statement]) -> aws.iam.RolePolicy:
        """Let the role do what ``statements`` say."""
        return aws.iam.RolePolicy(
            f"{self._name}-{name}",
            name=name,
            role=self._role.name,
            policy=policy_json([statement.document() for statement in statements]),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _trust(oidc_provider_arn: str, subjects: Sequence[str]) -> str:
    issuer = oidc_provider_arn.partition(":oidc-provider/")[2]
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Federated": oidc_provider_arn},
                    "Action": "sts:AssumeRoleWithWebIdentity",
                    "Condition": {
                        "StringEquals": {
                            f"{issuer}:sub": list(subjects),
                            f"{issuer}:aud": "sts.amazonaws.com",
                        }
                    },
                }
            ],
        }
    )
