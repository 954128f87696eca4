"""The program: what a stage stands on, as far as it can be made before there is a stage.

::

    ../Pulumi.<stage>.yaml + Pulumi.<stage>.yaml ─> roles and their trust ─> state: key, bucket
                                                 └─> places of secrets   └─> Google: pool, accounts

Whoever runs it administers the account and the project; nobody else needs to, ever after.
"""

from __future__ import annotations

import json
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_gcp as gcp

from bootstrap.github import GithubRole, GithubRoles, GithubRolesArgs
from bootstrap.google import GoogleTrust, GoogleTrustArgs
from bootstrap.settings import BootstrapSettings, boundary_name, parse
from bootstrap.state import StateStore, StateStoreArgs
from infra.configuration import read_stage_file
from infra.settings import Settings
from infra.target.prerequisites import GOOGLE_APIS
from infra.target.refusal import wrong_account, wrong_project
from infra.target.rights import boundary_policy, deployer_policies, drift_policies, preview_policies
from kilo.errors import BadInput, KiloError

ROOT = Path(__file__).resolve().parents[1]


def deploy(settings: Settings, own: BootstrapSettings) -> None:
    """Register it, and export what the repository's settings and the engine are told."""
    stage, tags = settings.stage, {"project": "kilo", "stage": settings.stage}
    # A branch's own code runs in the one that previews, behind a reviewer; the nightly look, which sees more,
    # has none and is for the default branch alone. So they are two, and no role is of both.
    environments = {"deploy": stage, "preview": f"preview-{stage}", "drift": f"drift-{stage}"}
    aws.iam.Policy(
        "boundary",
        name=boundary_name(settings),
        description=f"What no process of {stage} may go beyond",
        policy=json.dumps(boundary_policy(settings)),
        tags=tags,
    )
    roles = GithubRoles(
        "github",
        GithubRolesArgs(
            repository=own.repository,
            provider_arn=own.github_provider_arn,
            tags=tags,
            roles={
                "deploy": GithubRole(
                    own.deployer_role,
                    environments["deploy"],
                    f"Deploys {stage}",
                    deployer_policies(settings, own.state_bucket),
                ),
                "preview": GithubRole(
                    own.preview_role,
                    environments["preview"],
                    f"Previews {stage}; changes nothing",
                    preview_policies(settings, own.state_bucket),
                ),
                "drift": GithubRole(
                    own.drift_role,
                    environments["drift"],
                    f"Looks for drift in {stage}; changes nothing",
                    drift_policies(settings, own.state_bucket),
                ),
            },
        ),
    )
    alias = f"alias/kilo-state/{stage}"
    state = StateStore(
        "state",
        StateStoreArgs(
            bucket=own.state_bucket,
            alias=alias,
            account_id=settings.aws.account_id,
            deployer_arn=roles.arns["deploy"],
            preview_arn=roles.arns["preview"],
            drift_arn=roles.arns["drift"],
            keep_days=own.keep_states_days,
            tags=tags,
            protect=settings.protect,
        ),
    )
    # Its place alone: the value is put there by hand and is in no state.
    aws.secretsmanager.Secret("database-url", name=settings.database.url_secret_id, tags=tags)
    google = GoogleTrust(
        "google",
        GoogleTrustArgs(
            project=settings.gcp.project,
            stage=stage,
            repository=own.repository,
            environments=environments,
            apis=GOOGLE_APIS,
        ),
    )
    region = settings.aws.region
    backend = pulumi.Output.concat("s3://", state.bucket, f"?region={region}")
    pulumi.export("state_backend", backend)
    pulumi.export("secrets_provider", f"awskms://{alias}?region={region}")
    pulumi.export(
        "github_environments",
        {
            environment: {
                "AWS_ROLE_ARN": roles.arns[key],
                "AWS_REGION": region,
                "GCP_PROVIDER": google.provider,
                "GCP_ACCOUNT": google.accounts[key],
                "STATE_BACKEND": backend,
            }
            for key, environment in environments.items()
        },
    )


def refuse_elsewhere(settings: Settings) -> None:
    """Ask the clouds whose the credentials are.

    Raises:
        BadInput: an account or project that is not the stage's.
    """
    found = [
        *wrong_account(settings, aws.get_caller_identity().account_id),
        *wrong_project(settings, gcp.organizations.get_project(project_id=settings.gcp.project).number),
    ]
    if found:
        raise BadInput("\n".join([*found, "Nothing was changed."]))


def main() -> None:
    """Make what the stage of this name stands on, or say what is wrong."""
    try:
        settings = read_stage_file(ROOT / f"Pulumi.{pulumi.get_stack()}.yaml")
        own = parse(pulumi.runtime.config.CONFIG.get(), settings)
        refuse_elsewhere(settings)
        deploy(settings, own)
    except KiloError as error:
        raise pulumi.RunError(str(error)) from None


if __name__ == "__main__":
    main()
