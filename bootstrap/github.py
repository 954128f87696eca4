"""The roles that GitHub's workflows take, by the tokens that it signs for them, without any stored secret.

A workflow has a role when its job runs in the environment that the role trusts; who may run there is said in
the repository's settings (reviewers, branches).
https://docs.github.com/en/actions/security-for-github-actions/security-hardening-your-deployments/configuring-openid-connect-in-amazon-web-services
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.target.rights import Policies

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


@dataclass(frozen=True)
class GithubRole:
    """A role, the environment of the repository that takes it, and what it may do."""

    name: str
    environment: str
    description: str
    policies: Policies


@dataclass(frozen=True)
class GithubRolesArgs:
    """The repository, its roles, and the account's provider of GitHub's tokens where there is one."""

    repository: str
    roles: Mapping[str, GithubRole]
    provider_arn: str | None
    tags: Mapping[str, str]


class GithubRoles(pulumi.ComponentResource):
    """The provider, unless there is one, and the roles."""

    arns: Mapping[str, pulumi.Output[str]]

    def __init__(self, name: str, args: GithubRolesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:bootstrap:GithubRoles", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        provider: pulumi.Input[str]
        if args.provider_arn:
            provider = args.provider_arn
        else:
            provider = aws.iam.OpenIdConnectProvider(
                name, url=f"https://{ISSUER}", client_id_lists=[AUDIENCE], tags=args.tags, opts=child
            ).arn
        trust = {
            key: pulumi.Output.from_input(provider).apply(
                lambda arn, environment=role.environment: json.dumps(
                    trust_policy(arn, args.repository, environment)
                )
            )
            for key, role in args.roles.items()
        }
        self.arns = {}
        for key, role in args.roles.items():
            made = aws.iam.Role(
                f"{name}-{key}",
                name=role.name,
                description=role.description,
                assume_role_policy=trust[key],
                # Most deployments are done in an hour; the credential process fetches anew.
                max_session_duration=3_600,
                tags=args.tags,
                opts=child,
            )
            for policy, document in role.policies.items():
                aws.iam.RolePolicy(
                    f"{name}-{key}-{policy}",
                    name=policy,
                    role=made.name,
                    policy=json.dumps(document),
                    opts=child,
                )
            self.arns[key] = made.arn
        self.register_outputs({"arns": self.arns})


def subject(repository: str, environment: str) -> str:
    """What GitHub's tokens say of a job of ``repository`` that runs in ``environment``."""
    return f"repo:{repository}:environment:{environment}"


def trust_policy(provider_arn: str, repository: str, environment: str) -> dict[str, Any]:
    """Who takes a role: a job of ``repository`` that runs in ``environment``, and nobody else."""
    claims = {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": [subject(repository, environment)]}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Workflow",
                "Effect": "Allow",
                "Principal": {"Federated": provider_arn},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {"StringEquals": claims},
            }
        ],
    }
