"""What GitHub's workflows are in Google Cloud: service accounts, taken by the tokens that GitHub signs.

https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from bootstrap.github import ISSUER, subject

DEPLOYER_ROLES = ("roles/artifactregistry.admin", "roles/browser", "roles/storage.admin")
"""Buckets and registries with who may use them, and to see which project it is."""
PREVIEW_ROLES = ("roles/artifactregistry.reader", "roles/browser")
"""To see which project it is, and images (``.ci/parity``): without a refresh nothing else is looked at."""
DRIFT_ROLES = (
    "roles/artifactregistry.reader",
    "roles/browser",
    "roles/cloudasset.viewer",
    "roles/iam.securityReviewer",
    "roles/storage.bucketViewer",
)
"""To see how things are set up, who may use them, and what there is by its labels; no object of a bucket."""
ROLES = {"deploy": DEPLOYER_ROLES, "preview": PREVIEW_ROLES, "drift": DRIFT_ROLES}
DRIFT_API = "cloudasset.googleapis.com"
"""The nightly look for drift asks it for what no program declares (``.ci/undeclared``); no stage needs it."""


@dataclass(frozen=True)
class GoogleTrustArgs:
    """The project, the repository, and the environments whose jobs are the one account or the other."""

    project: str
    stage: str
    repository: str
    environments: Mapping[str, str]
    """By the key of :data:`ROLES`."""
    apis: Sequence[str]


class GoogleTrust(pulumi.ComponentResource):
    """The APIs, the pool with GitHub as its provider, and the service accounts."""

    provider: pulumi.Output[str]
    accounts: Mapping[str, pulumi.Output[str]]

    def __init__(self, name: str, args: GoogleTrustArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:bootstrap:GoogleTrust", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        apis = [
            gcp.projects.Service(
                f"{name}-{api.partition('.')[0]}",
                project=args.project,
                service=api,
                # Others of the project may use it too.
                disable_on_destroy=False,
                opts=child,
            )
            for api in (*args.apis, DRIFT_API)
        ]
        ready = pulumi.ResourceOptions(parent=self, depends_on=apis)
        pool = gcp.iam.WorkloadIdentityPool(
            name,
            project=args.project,
            workload_identity_pool_id=f"kilo-{args.stage}-github",
            display_name=f"GitHub for {args.stage}",
            opts=ready,
        )
        provider = gcp.iam.WorkloadIdentityPoolProvider(
            name,
            project=args.project,
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id="github",
            # The subject says the repository and the environment.
            attribute_mapping={"google.subject": "assertion.sub"},
            attribute_condition=f"assertion.repository == '{args.repository}'",
            oidc=gcp.iam.WorkloadIdentityPoolProviderOidcArgs(issuer_uri=f"https://{ISSUER}"),
            opts=ready,
        )
        self.provider = provider.name
        self.accounts = {}
        for key, environment in args.environments.items():
            account = gcp.serviceaccount.Account(
                f"{name}-{key}",
                project=args.project,
                account_id=f"kilo-{args.stage}-{key}",
                display_name=f"{key} {args.stage}",
                opts=ready,
            )
            gcp.serviceaccount.IAMMember(
                f"{name}-{environment}",
                service_account_id=account.name,
                role="roles/iam.workloadIdentityUser",
                member=pulumi.Output.concat(
                    "principal://iam.googleapis.com/",
                    pool.name,
                    "/subject/",
                    subject(args.repository, environment),
                ),
                opts=child,
            )
            for role in ROLES[key]:
                gcp.projects.IAMMember(
                    f"{name}-{key}-{role.removeprefix('roles/')}",
                    project=args.project,
                    role=role,
                    member=account.member,
                    opts=child,
                )
            self.accounts[key] = account.email
        self.register_outputs({"provider": self.provider, "accounts": self.accounts})
