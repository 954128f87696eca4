"""Refuses another account, project or cluster than the stage's, before anything is registered.

The providers' ``aws:allowedAccountIds`` and ``kubernetes:context`` refuse by themselves once they are asked
for something; by then the other cloud may have been changed. So the program asks everywhere first:

- AWS, for the caller's account, which must be ``aws.account_id``;
- Google Cloud, for the project's number, which must be that of ``gcp.project_number``, or of the workload
  identity pool where the file names none;
- the cluster, for the issuer of its service accounts' tokens, which must be ``aws.oidc_provider_arn``'s (not
  in dev, which may run on any cluster), and for the namespace, which must be this stage's or not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pulumi_aws as aws
import pulumi_gcp as gcp

from components.pods.labels import PART_OF, PART_OF_LABEL
from components.pods.stage_namespace import OWNER_LABEL
from infra.settings import Settings
from infra.target.kubeconfig import Cluster, Refused
from kilo.errors import BadInput, Unreachable

ISSUER_PATH = "/.well-known/openid-configuration"


def refuse_elsewhere(settings: Settings, context: str | None) -> None:
    """Ask the clouds and the cluster of ``context`` who they are.

    Raises:
        BadInput: one of them is not the stage's; a line for each that isn't.
        KiloError: one of them doesn't answer.
    """
    mistakes = [
        *wrong_account(settings, _asked("AWS", aws.get_caller_identity).account_id),
        *wrong_project(
            settings,
            _asked(
                "Google Cloud", lambda: gcp.organizations.get_project(project_id=settings.gcp.project)
            ).number,
        ),
        *wrong_cluster(settings, Cluster(context)),
    ]
    if mistakes:
        raise BadInput("\n".join([*mistakes, "Nothing was changed."]))


def _asked(cloud: str, ask: Any) -> Any:
    try:
        return ask()
    except Exception as error:
        # The SDK raises bare exceptions here; without this they would come as tracebacks.
        msg = f"{cloud} doesn't say who deploys: {' '.join(str(error).split())}"
        raise Unreachable(msg) from error


def wrong_account(settings: Settings, account: str) -> Iterator[str]:
    """What is wrong with the AWS account that the credentials belong to."""
    if account != settings.aws.account_id:
        yield (
            f"AWS: the credentials are account {account}'s, and {settings.stage} is in "
            f"{settings.aws.account_id} (kilo:aws.account_id); sign in to that one"
        )


def wrong_project(settings: Settings, number: str) -> Iterator[str]:
    """What is wrong with the Google Cloud project that ``gcp:project`` names."""
    gcp_settings = settings.gcp
    wanted, said = gcp_settings.project_number, "kilo:gcp.project_number"
    if wanted is None:
        wanted, said = (
            gcp_settings.workload_identity_provider.split("/")[1],
            "kilo:gcp.workload_identity_provider",
        )
    if number != wanted:
        yield (
            f"Google Cloud: project {gcp_settings.project} has the number {number}, and {said} names "
            f"{wanted}; correct gcp:project, or give project_number where the pool is another project's"
        )


def wrong_cluster(settings: Settings, cluster: Cluster) -> Iterator[str]:
    """What is wrong with the cluster, and with the namespace in it."""
    if not settings.is_dev:
        yield from _wrong_issuer(settings, cluster)
    namespace = cluster.get(f"/api/v1/namespaces/{settings.namespace}")
    labels: Mapping[str, str] = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    owner = labels.get(OWNER_LABEL)
    if owner == settings.stage or namespace is None:
        return
    # Those of before there was an owner's label have the other one.
    if owner is None and labels.get(PART_OF_LABEL) == PART_OF:
        return
    whose = f"is {owner}'s" if owner else "was made by somebody else"
    yield (
        f"Kubernetes: namespace '{settings.namespace}' of context '{cluster.context}' {whose}, and would be "
        f"{settings.stage}'s; choose another kilo:namespace or context, or label it "
        f"{OWNER_LABEL}={settings.stage} if all in it may be taken over"
    )


def _wrong_issuer(settings: Settings, cluster: Cluster) -> Iterator[str]:
    wanted = settings.aws.oidc_provider_arn.partition(":oidc-provider/")[2]
    try:
        found = cluster.get(ISSUER_PATH)
    except Refused as refused:
        msg = f"{refused}; bind the deployer to the ClusterRole system:service-account-issuer-discovery"
        raise Unreachable(msg) from refused
    # Without one no pod could take a role; such a cluster only stores objects.
    issuer = str((found or {}).get("issuer", "")).removeprefix("https://")
    if found is not None and issuer != wanted:
        yield (
            f"Kubernetes: the cluster of context '{cluster.context}' issues tokens as {issuer or 'nobody'}, "
            f"and {settings.stage} runs where {wanted} does (kilo:aws.oidc_provider_arn); use its context"
        )
