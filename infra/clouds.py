"""Clouds: keys, registries and vaults, and who may use them.

Takes the settings and the identities; gives :class:`Clouds`. The database is there already, and so is the
secret with its administrator's URL, which the identity that migrates the schema may read and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.clouds.backup_vault import BackupVault, BackupVaultArgs, Replica
from components.clouds.iam import Statement
from components.clouds.key_policy import DECRYPT, ENCRYPT, SIGN, VERIFY, KeyUser
from components.clouds.mirrored_registry import MirroredRegistry, MirroredRegistryArgs
from components.clouds.msk_access import msk_statements
from components.clouds.s3_locked_bucket import S3LockedBucket, S3LockedBucketArgs
from components.clouds.secret_access import READ_SECRET, secret_arn
from components.clouds.tenant_keys import TenantKeys, TenantKeysArgs
from infra import names
from infra.identities import Identities
from infra.key_users import tenant_key_users
from infra.settings import Settings


@dataclass(frozen=True)
class Clouds:
    """What lies in the clouds."""

    keys: TenantKeys
    registry: MirroredRegistry
    vault: BackupVault
    audit: S3LockedBucket


def create_clouds(settings: Settings, identities: Identities) -> Clouds:
    """Register what lies in the clouds, and let each identity do there what it must and no more."""
    tags = {"project": "kilo", "stage": settings.stage}
    _allow_kafka(settings, identities)
    identities.schema.allow("database-url", [Statement("DatabaseUrl", READ_SECRET, [_secret_arn(settings)])])
    return Clouds(
        keys=_tenant_keys(settings, identities, tags),
        registry=_registry(settings, identities, tags),
        vault=_vault(settings, identities, tags),
        audit=S3LockedBucket(
            "audit",
            S3LockedBucketArgs(
                bucket=settings.audit.bucket,
                lock_mode=settings.audit.lock_mode,
                lock_days=settings.audit.lock_days,
                keep_days=None,
                protect=settings.protect,
                tags=tags,
            ),
        ),
    )


def _secret_arn(settings: Settings) -> str:
    return secret_arn(settings.aws.region, settings.aws.account_id, settings.database.url_secret_id)


def _allow_kafka(settings: Settings, identities: Identities) -> None:
    if cluster := settings.bus.msk_cluster:
        for role, identity in identities.bus.items():
            identity.allow("kafka", msk_statements(role, cluster, names.KAFKA_TOPIC))


def _tenant_keys(settings: Settings, identities: Identities, tags: dict[str, str]) -> TenantKeys:
    tenants, replicas = settings.resolved_tenants, settings.aws.tenant_key_replicas
    return TenantKeys(
        "tenant-keys",
        TenantKeysArgs(
            tenants=[tenant.id for tenant in tenants if tenant.kms_key == "own"],
            replica_regions=replicas.regions if replicas else (),
            keep_former=bool(replicas and replicas.migrating),
            sharing=[tenant.id for tenant in tenants if tenant.kms_key == "shared"],
            alias_prefix=f"alias/kilo/{settings.stage}/tenant",
            administrators=settings.aws.key_administrators,
            auditors=settings.aws.key_auditors,
            users=tenant_key_users(
                settings,
                ingest=identities.ingest.role_arn,
                consumer=identities.consumer.role_arn,
                key_making=identities.key_making.role_arn,
            ),
            deletion_window_days=settings.key_deletion_window_days,
            protect=settings.protect,
            tags=tags,
        ),
    )


def _registry(settings: Settings, identities: Identities, tags: dict[str, str]) -> MirroredRegistry:
    registry = MirroredRegistry(
        "registry",
        MirroredRegistryArgs(
            stage=settings.stage,
            repositories=settings.registry.every_repository,
            google_project=settings.gcp.project,
            google_location=settings.gcp.region,
            protect=settings.protect,
            tags=tags,
            replica_regions=settings.registry.replica_regions,
        ),
    )
    registry.allow_mirroring(identities.mirror, from_events=True)
    registry.allow_mirroring(identities.sweep, from_events=False)
    return registry


def _vault(settings: Settings, identities: Identities, tags: dict[str, str]) -> BackupVault:
    stage, backups = settings.stage, settings.backups
    vault = BackupVault(
        "backups",
        BackupVaultArgs(
            primary_bucket=backups.primary.bucket,
            primary_lock_mode=backups.primary.lock_mode,
            secondary_bucket=backups.secondary.bucket,
            secondary_location=settings.gcp.region,
            secondary_locked=backups.secondary.locked,
            lock_days=backups.lock_days,
            keep_days=backups.keep_days,
            key_alias=f"alias/kilo/{stage}/backup",
            key_administrators=settings.aws.key_administrators,
            key_auditors=settings.aws.key_auditors,
            key_users=[
                KeyUser("Backup", identities.backup.role_arn, ENCRYPT),
                KeyUser("Drill", identities.drill.role_arn, DECRYPT),
            ],
            key_deletion_window_days=settings.key_deletion_window_days,
            key_context={"purpose": "backup"},
            signing_key_alias=f"alias/kilo/{stage}/backup-signing",
            signing_key_users=[
                KeyUser("Backup", identities.backup.role_arn, SIGN),
                KeyUser("Completion", identities.completion.role_arn, VERIFY),
                KeyUser("Drill", identities.drill.role_arn, VERIFY),
                KeyUser("Exporter", identities.watch.role_arn, VERIFY),
            ],
            protect=settings.protect,
            tags=tags,
            restorers=backups.restorers,
            google_restorers=backups.google_restorers,
            replica=backups.replica
            and Replica(
                backups.replica.region,
                backups.replica.bucket,
                role_name=f"kilo-{stage}-backup-replication",
                permissions_boundary=settings.aws.permissions_boundary,
            ),
        ),
    )
    vault.allow_writing(identities.backup)
    vault.allow_completing(identities.completion)
    vault.allow_drilling(identities.drill)
    vault.allow_watching(identities.watch)
    return vault
