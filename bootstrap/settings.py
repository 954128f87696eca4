"""What the bootstrap's file says, beside the stage's own, from which all names come that both need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from infra.setting_types import BucketName, OidcProviderArn
from infra.settings import Settings
from infra.target.rights import boundary_arn
from kilo.errors import BadInput

PROJECT = "kilo-bootstrap"
RoleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+=,.@_-]{1,64}$")]


class BootstrapSettings(BaseModel):
    """What a stage stands on, as far as its own file does not say it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$")] = Field(
        description="The repository on GitHub whose workflows deploy: OWNER/NAME."
    )
    state_bucket: BucketName
    github_provider_arn: OidcProviderArn | None = Field(
        default=None, description="An account has one provider of GitHub's; without this it is made."
    )
    deployer_role: RoleName = "deployer"
    preview_role: RoleName = "preview"
    drift_role: RoleName = "drift"
    keep_states_days: int = Field(default=90, ge=7, le=3_650)


def parse(values: Mapping[str, object], settings: Settings) -> BootstrapSettings:
    """Check the ``config:`` of the bootstrap's file against the stage's.

    Raises:
        BadInput: a line for each mistake.
    """
    file = f"bootstrap/Pulumi.{settings.stage}.yaml"
    own = {key.partition(":")[2]: value for key, value in values.items() if key.partition(":")[0] == PROJECT}
    try:
        parsed = BootstrapSettings.model_validate(own)
    except ValidationError as error:
        lines = [
            f"{file}: {PROJECT}:{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        ]
        raise BadInput("\n".join(lines)) from error
    lines = [f"{file}: {PROJECT}:{message}" for message in _mistakes(parsed, settings)]
    shared = {"aws:region": settings.aws.region, "gcp:project": settings.gcp.project}
    lines += [
        f"{file}: {key}: {values.get(key)} is not the stage's; use {value}"
        for key, value in shared.items()
        if values.get(key) != value
    ]
    if lines:
        raise BadInput("\n".join(lines))
    return parsed


def _mistakes(own: BootstrapSettings, settings: Settings) -> Iterator[str]:
    aws, stage_file = settings.aws, f"Pulumi.{settings.stage}.yaml"
    roles = {name: getattr(own, name) for name in ("deployer_role", "preview_role", "drift_role")}
    arns = {name: f"arn:aws:iam::{aws.account_id}:role/{role}" for name, role in roles.items()}
    for name, listed, where in (
        ("deployer_role", aws.key_administrators, "key_administrators"),
        ("drift_role", aws.key_auditors, "key_auditors"),
    ):
        if (arn := arns[name]) not in listed:
            yield f"{name}: keys' policies must name it; put {arn} into kilo:aws.{where} of {stage_file}"
    if (arn := arns["preview_role"]) in aws.key_auditors:
        yield (
            f"preview_role: a branch's own code runs with it, and it asks for no key; take {arn} out of "
            f"kilo:aws.key_auditors of {stage_file}"
        )
    taken: dict[str, str] = {}
    for name, role in roles.items():
        if (other := taken.setdefault(role, name)) != name:
            yield f"{name}: '{role}' is {other}'s name; each environment has a role of its own"
        if role.startswith(prefix := f"kilo-{settings.stage}-"):
            yield (
                f"{name}: '{role}' is called as the stage's processes, whose roles the deployer changes; "
                f"use a name without {prefix}"
            )
    if aws.permissions_boundary is None:
        yield (
            f"deployer_role: it may make no role without a boundary; set kilo:aws.permissions_boundary of "
            f"{stage_file} to {boundary_arn(settings)}"
        )
    elif aws.permissions_boundary != f"arn:aws:iam::{aws.account_id}:policy/{boundary_name(settings)}":
        yield (
            f"deployer_role: kilo:aws.permissions_boundary of {stage_file} is of another account or path; "
            f"use arn:aws:iam::{aws.account_id}:policy/{boundary_name(settings)}"
        )


def boundary_name(settings: Settings) -> str:
    """What the boundary is called: as the stage's file says."""
    return boundary_arn(settings).rpartition("/")[2]
