"""What a stage's file says of the clouds: accounts, tenants' keys, registries and stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from infra.setting_types import (
    AwsRegion,
    BucketName,
    CronSchedule,
    DnsLabel,
    GcpRegion,
    GoogleMember,
    IamArn,
    IamPolicyArn,
    OidcProviderArn,
    RepositoryName,
    WorkloadIdentityPool,
)
from kilo.contract import SERVICE_CHART, SignersOutputs
from kilo.errors import KiloError
from kilo.registry.signers import Signers
from kilo.tenancy import TenantId


class Section(BaseModel):
    """A part of a stage's file: what it does not know, it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TenantKeyUser(Section):
    """A role that uses tenants' KMS keys, such as the one that rotates data keys."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,31}$")] = Field(
        description="a name in capitals and letters such as Rotation; the policy's statements are called so"
    )
    role_arn: IamArn
    can: tuple[Literal["encrypt", "decrypt"], ...] = Field(min_length=1)
    tenants: tuple[TenantId, ...] | None = Field(
        default=None, min_length=1, description="Only these tenants' keys; all of them without it."
    )


class TenantKeyReplicas(Section):
    """Other regions in which tenants' KMS keys can be used while their own is away.

    A KMS key is multi-region from its making or never: on a stage that has keys already, this makes new ones.
    ``docs/runbooks/tenant-key-replicas.md`` has the way from the one to the other.
    """

    regions: tuple[AwsRegion, ...] = Field(min_length=1)
    migrating: bool = Field(
        default=False,
        description="Keep the keys from before and open what they wrapped, until it is wrapped again.",
    )


class Aws(Section):
    """The primary cloud. ``region`` comes from ``aws:region``, which the provider reads as well."""

    region: AwsRegion
    account_id: Annotated[
        str, StringConstraints(pattern=r"^[0-9]{12}$"), Field(description="12 digits in quotes")
    ]
    oidc_provider_arn: OidcProviderArn
    key_administrators: tuple[IamArn, ...] = Field(min_length=1)
    key_auditors: tuple[IamArn, ...] = Field(
        default=(),
        description="Who sees how keys are set up, and no more: the role that looks for drift.",
    )
    key_users: tuple[TenantKeyUser, ...] = Field(
        default=(), description="Who uses tenants' keys besides the platform's own workloads."
    )
    permissions_boundary: IamPolicyArn | None = Field(
        default=None,
        description="What no role of the platform may go beyond, whatever its policies say; `bootstrap/` "
        "makes one, and lets the deployer make no role without it.",
    )
    tenant_key_replicas: TenantKeyReplicas | None = Field(
        default=None,
        description="Without it, what is encrypted for tenants is unreadable while the region is away.",
    )


class Gcp(Section):
    """The secondary cloud. ``project`` and ``region`` come from ``gcp:project`` and ``gcp:region``."""

    project: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$"),
        Field(description="a project id of 6 to 30 lower-case letters, digits and hyphens"),
    ]
    region: GcpRegion
    workload_identity_provider: WorkloadIdentityPool
    project_number: Annotated[str, StringConstraints(pattern=r"^[0-9]{6,20}$")] | None = Field(
        default=None,
        description="The project's number, where the workload identity pool is another project's.",
    )


class Registry(Section):
    """The mirrored registry."""

    repositories: tuple[RepositoryName, ...] = Field(min_length=1)
    mirroring: bool = Field(default=True, description="False stops the mirror's worker and its sweep.")
    sweep_schedule: CronSchedule = "*/15 * * * *"
    signers: SignersOutputs = SignersOutputs()
    replica_regions: tuple[AwsRegion, ...] = ()

    @property
    def every_repository(self) -> tuple[str, ...]:
        """The stage's own and that of the paved road's chart, which is mirrored as they are."""
        return tuple(dict.fromkeys((*self.repositories, SERVICE_CHART)))

    @field_validator("signers")
    @classmethod
    def _signers_can_sign(cls, value: SignersOutputs) -> SignersOutputs:
        try:
            Signers.of_outputs(value)
        except KiloError as error:
            raise ValueError(str(error)) from error
        return value


class PrimaryStore(Section):
    """An S3 bucket with object lock."""

    bucket: BucketName
    lock_mode: Literal["governance", "compliance"] = "governance"


class SecondaryStore(Section):
    """A Cloud Storage bucket with a retention policy. ``locked`` cannot be undone, ever."""

    bucket: BucketName
    locked: bool = False


class Replica(Section):
    """Another region of AWS, to which the primary store and the backup key are copied."""

    region: AwsRegion
    bucket: BucketName


class Backups(Section):
    """Database backups in two clouds."""

    primary: PrimaryStore
    secondary: SecondaryStore
    replica: Replica | None = None
    """Without one, the backup key goes with its region, and nothing can be restored without the key."""
    lock_days: int = Field(ge=1, le=3_650)
    keep_days: int = Field(ge=1, le=3_650)
    schedule: CronSchedule = "15 2 * * *"
    completion_schedule: CronSchedule = "45 * * * *"
    """When what only one store has is copied to the other."""
    drill_space_gib: int = Field(default=10, ge=1, le=16_384)
    drill_storage_class: str | None = Field(
        default=None, description="Of a disk that a drill restores into; without it, it is the node's own."
    )
    drill_schedule: CronSchedule = "45 4 * * 0"
    restorers: tuple[IamArn, ...] = ()
    """Who restores by hand, in AWS: they read the stores and open backups, and write nothing. Nobody outside
    of the cluster can without being named, and nobody can be named while the region is away."""
    google_restorers: tuple[GoogleMember, ...] = ()
    """The same people in Google Cloud, who read the secondary store."""


class Audit(PrimaryStore):
    """Where checkpoints of the audit log are locked, when they are signed, and when keys that are due go.

    Without ``signing_key_secret`` nothing is signed on a schedule. It names a Secret of the stage's namespace
    that holds, as ``key.pem``, the private half of ``field_encryption.audit_public_key``.
    """

    lock_days: int = Field(ge=1, le=3_650)
    signing_key_secret: DnsLabel | None = None
    checkpoint_schedule: CronSchedule = "20 * * * *"
    destruction_schedule: CronSchedule = "40 3 * * *"
