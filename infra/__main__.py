"""The program: one stage of the platform, from its configuration to its outputs.

::

    Pulumi.<stage>.yaml ─> settings ─> identities ─> keys, registries, vaults ─> outputs ─> cluster

    HTTP ─> gateway ─> ingest ─> database: business row + outbox, one transaction
                                     │ outbox worker, or change capture
                                     v
                                message bus ─> consumer
"""

from __future__ import annotations

import gc

import pulumi
import pulumi_aws as aws

from components.clouds.backup_vault import BackupVault, BackupVaultArgs, Replica
from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.clouds.key_policy import DECRYPT, ENCRYPT, SIGN, VERIFY, KeyUser
from components.clouds.mirrored_registry import MirroredRegistry, MirroredRegistryArgs
from components.clouds.s3_locked_bucket import S3LockedBucket, S3LockedBucketArgs
from components.clouds.tenant_keys import TenantKeys, TenantKeysArgs
from components.observability.monitoring import Monitoring, MonitoringArgs
from components.pods.runtime_pod import RuntimePlace
from components.pods.stage_namespace import StageNamespace, StageNamespaceArgs
from components.processes.backup_schedule import (
    BACKUP,
    COMPLETION,
    DRILL,
    WATCH,
    BackupSchedule,
    BackupScheduleArgs,
)
from components.processes.change_capture import ChangeCapture, ChangeCaptureArgs
from components.processes.consumer import Consumer, ConsumerArgs
from components.processes.database_roles import DatabaseRoles, DatabaseRolesArgs
from components.processes.encryption_schedule import (
    CHECKPOINT,
    Checkpoints,
    EncryptionSchedule,
    EncryptionScheduleArgs,
)
from components.processes.ingest import Ingest, IngestArgs
from components.processes.message_bus import ExistingBus, ExistingBusArgs, MessageBus, MessageBusArgs
from components.processes.outbox import Outbox, OutboxArgs
from components.processes.preview_environment import PreviewEnvironment, PreviewEnvironmentArgs
from components.processes.registry_mirror import SWEEP, RegistryMirror, RegistryMirrorArgs
from components.processes.tenant_gateway import TenantGateway, TenantGatewayArgs
from infra import names, rendering
from infra.configuration import from_engine
from infra.outputs import checksum, database_port, export, outputs_document, outputs_json
from infra.settings import Settings
from kilo.errors import KiloError
from kilo.observe.dashboards import render_dashboards


def deploy(settings: Settings) -> None:
    """Register everything that the stage consists of, and export its outputs."""
    stage, namespace = settings.stage, settings.namespace
    tags = {"project": "kilo", "stage": stage}

    # Who may do what: an identity a process, in both clouds.
    def identity(*service_accounts: str, google: bool = False) -> CloudIdentity:
        return CloudIdentity(
            service_accounts[0],
            CloudIdentityArgs(
                namespace=namespace,
                service_accounts=service_accounts,
                role_name=f"kilo-{stage}-{service_accounts[0]}",
                oidc_provider_arn=settings.aws.oidc_provider_arn,
                google_identity_provider=settings.gcp.workload_identity_provider if google else None,
            ),
        )

    ingest_identity = identity(names.INGEST, names.INGEST_NEXT)
    consumer_identity = identity(names.CONSUMER)
    mirror_identity = identity(names.MIRROR, google=True)
    sweep_identity = identity(SWEEP, google=True)
    backup_identity = identity(BACKUP, google=True)
    completion_identity = identity(COMPLETION, google=True)
    drill_identity = identity(DRILL, google=True)
    watch_identity = identity(WATCH, google=True)

    # Clouds: keys, registries, vaults.
    keys = TenantKeys(
        "tenant-keys",
        TenantKeysArgs(
            tenants=[tenant.id for tenant in settings.resolved_tenants if tenant.kms_key == "own"],
            sharing=[tenant.id for tenant in settings.resolved_tenants if tenant.kms_key == "shared"],
            alias_prefix=f"alias/kilo/{stage}/tenant",
            administrators=settings.aws.key_administrators,
            users=[
                KeyUser("Ingest", ingest_identity.role_arn, [*ENCRYPT, *DECRYPT]),
                KeyUser("Consumer", consumer_identity.role_arn, DECRYPT),
                *rendering.key_users(settings),
            ],
            deletion_window_days=settings.key_deletion_window_days,
            protect=settings.protect,
            tags=tags,
        ),
    )
    registry = MirroredRegistry(
        "registry",
        MirroredRegistryArgs(
            stage=stage,
            repositories=settings.registry.repositories,
            google_project=settings.gcp.project,
            google_location=settings.gcp.region,
            protect=settings.protect,
            tags=tags,
            replica_regions=settings.registry.replica_regions,
            deployed_images=[preview.image for preview in settings.previews],
        ),
    )
    registry.allow_mirroring(mirror_identity, from_events=True)
    registry.allow_mirroring(sweep_identity, from_events=False)
    vault = BackupVault(
        "backups",
        BackupVaultArgs(
            primary_bucket=settings.backups.primary.bucket,
            primary_lock_mode=settings.backups.primary.lock_mode,
            secondary_bucket=settings.backups.secondary.bucket,
            secondary_location=settings.gcp.region,
            secondary_locked=settings.backups.secondary.locked,
            lock_days=settings.backups.lock_days,
            keep_days=settings.backups.keep_days,
            key_alias=f"alias/kilo/{stage}/backup",
            key_administrators=settings.aws.key_administrators,
            key_users=[
                KeyUser("Backup", backup_identity.role_arn, ENCRYPT),
                KeyUser("Drill", drill_identity.role_arn, DECRYPT),
            ],
            key_deletion_window_days=settings.key_deletion_window_days,
            key_context={"purpose": "backup"},
            signing_key_alias=f"alias/kilo/{stage}/backup-signing",
            signing_key_users=[
                KeyUser("Backup", backup_identity.role_arn, SIGN),
                KeyUser("Completion", completion_identity.role_arn, VERIFY),
                KeyUser("Drill", drill_identity.role_arn, VERIFY),
                KeyUser("Exporter", watch_identity.role_arn, VERIFY),
            ],
            protect=settings.protect,
            tags=tags,
            replica=settings.backups.replica
            and Replica(
                settings.backups.replica.region,
                settings.backups.replica.bucket,
                role_name=f"kilo-{stage}-backup-replication",
            ),
        ),
    )
    vault.allow_writing(backup_identity)
    vault.allow_completing(completion_identity)
    vault.allow_drilling(drill_identity)
    vault.allow_watching(watch_identity)
    audit = S3LockedBucket(
        "audit",
        S3LockedBucketArgs(
            bucket=settings.audit.bucket,
            lock_mode=settings.audit.lock_mode,
            lock_days=settings.audit.lock_days,
            keep_days=None,
            protect=settings.protect,
            tags=tags,
        ),
    )

    # Outputs: what services may know, which is also what the stack exports.
    database_url = pulumi.Output.secret(
        aws.secretsmanager.get_secret_version_output(secret_id=settings.database.url_secret_id).secret_string
    )
    document = outputs_document(
        settings, database_url=database_url, keys=keys, registry=registry, vault=vault, audit=audit
    )
    export(document)

    # Cluster: the platform's own processes.
    home = StageNamespace(
        "namespace",
        StageNamespaceArgs(
            namespace=namespace,
            outputs_json=outputs_json(document),
            google_identity_provider=settings.gcp.workload_identity_provider,
        ),
    )
    place = RuntimePlace(
        namespace=namespace,
        image=settings.images.runtime,
        aws_region=settings.aws.region,
        google_project=settings.gcp.project,
        outputs_checksum=checksum({**document, "tenants": None}),
        tenants_checksum=checksum(document["tenants"]),
        database_network=settings.database.network,
        database_port=database_port(database_url),
        monitoring_namespace=settings.monitoring.namespace,
    )
    inside = pulumi.ResourceOptions(depends_on=[home])
    to_bus, streams_arguments = rendering.to_bus(settings), rendering.streams_arguments(settings)
    bus = (
        ExistingBus(names.KAFKA, ExistingBusArgs(place, to_bus, streams_arguments), opts=inside)
        if settings.bus.kafka
        else MessageBus(
            names.BUS,
            MessageBusArgs(
                place=place,
                image=settings.images.nats,
                replicas=settings.bus.replicas,
                storage_gibibytes=settings.bus.storage_gib,
                storage_class=settings.bus.storage_class,
                config=rendering.nats_config(settings),
                streams_arguments=streams_arguments,
                clients=names.BUS_CLIENTS,
            ),
            opts=inside,
        )
    )
    database = DatabaseRoles(
        "database",
        DatabaseRolesArgs(place=place, admin_url=database_url, schema_checksum=rendering.schema_checksum()),
        opts=inside,
    )
    ready = pulumi.ResourceOptions(depends_on=[home, bus, database])
    ingest = Ingest(
        names.INGEST,
        IngestArgs(
            place=place,
            replicas=settings.ingest.replicas,
            identity=ingest_identity,
            gateway=names.GATEWAY,
            next_image=settings.ingest.next_image,
        ),
        opts=ready,
    )
    Outbox(
        names.OUTBOX,
        OutboxArgs(place=place, workers=settings.outbox.workers, bus=to_bus),
        opts=ready,
    )
    ChangeCapture(
        names.CHANGE_CAPTURE,
        ChangeCaptureArgs(
            place=place,
            image=settings.images.debezium,
            properties=rendering.debezium_properties(settings),
            bus=to_bus,
            storage_class=settings.bus.storage_class,
        ),
        opts=ready,
    )
    Consumer(
        names.CONSUMER,
        ConsumerArgs(
            place=place,
            replicas=settings.consumer.replicas,
            identity=consumer_identity,
            bus=to_bus,
        ),
        opts=ready,
    )
    TenantGateway(
        names.GATEWAY,
        TenantGatewayArgs(
            namespace=namespace,
            image=settings.images.envoy,
            tenants=[tenant for tenant in settings.resolved_tenants if tenant.accepting],
            settings=rendering.gateway_settings(settings),
            upstreams=ingest.workloads,
            monitoring_namespace=settings.monitoring.namespace,
        ),
        opts=inside,
    )
    RegistryMirror(
        names.MIRROR,
        RegistryMirrorArgs(
            place=place,
            mirror_identity=mirror_identity,
            sweep_identity=sweep_identity,
            sweep_schedule=settings.registry.sweep_schedule,
        ),
        opts=inside,
    )
    BackupSchedule(
        "backup-schedule",
        BackupScheduleArgs(
            place=place,
            writer=backup_identity,
            completer=completion_identity,
            restorer=drill_identity,
            watcher=watch_identity,
            schedule=settings.backups.schedule,
            completion_schedule=settings.backups.completion_schedule,
            drill_schedule=settings.backups.drill_schedule,
            drill_space_gibibytes=settings.backups.drill_space_gib,
        ),
        opts=ready,
    )
    EncryptionSchedule(
        "encryption-schedule",
        EncryptionScheduleArgs(
            place=place,
            destruction_schedule=settings.audit.destruction_schedule,
            checkpoints=Checkpoints(
                identity=identity(CHECKPOINT),
                bucket=audit,
                signing_key_secret=settings.audit.signing_key_secret,
                schedule=settings.audit.checkpoint_schedule,
            )
            if settings.audit.signing_key_secret
            else None,
        ),
        opts=ready,
    )

    # What is seen of it.
    Monitoring(
        "monitoring",
        MonitoringArgs(
            namespace=namespace,
            rules=rendering.alert_rules(settings),
            dashboards=render_dashboards(),
            alert_routes=rendering.alert_routes(settings),
            gateway=names.GATEWAY,
        ),
        opts=inside,
    )
    for preview in settings.previews:
        PreviewEnvironment(
            preview.name,
            PreviewEnvironmentArgs(image=preview.image, port=preview.port, expires_on=preview.expires_on),
        )


def main() -> None:
    """Deploy the stage that the engine names, or say what is wrong with its configuration."""
    # It runs once and ends. Looking for garbage among what the SDKs make took half of its time with five
    # tenants and three quarters with a thousand, to save a tenth of the memory.
    gc.disable()
    values = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    try:
        deploy(from_engine(values, pulumi.get_stack()))
    except KiloError as error:
        # A mistake in a file, not in the program: its lines are enough, without a traceback.
        raise pulumi.RunError(str(error)) from None


if __name__ == "__main__":
    main()
