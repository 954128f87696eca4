"""What runs beside the events, on schedules of its own: the registry's mirror, backups, upkeep of keys."""

from __future__ import annotations

import pulumi

from components.pods.runtime_pod import RuntimeContext
from components.processes.backup_schedule import BackupSchedule, BackupScheduleArgs
from components.processes.encryption_schedule import Checkpoints, EncryptionSchedule, EncryptionScheduleArgs
from components.processes.registry_mirror import RegistryMirror, RegistryMirrorArgs
from infra import names
from infra.clouds import Clouds
from infra.identities import Identities
from infra.settings import Settings


def create_schedules(
    settings: Settings,
    context: RuntimeContext,
    identities: Identities,
    clouds: Clouds,
    *,
    inside: pulumi.ResourceOptions,
    ready: pulumi.ResourceOptions,
) -> None:
    """Register what needs the namespace alone (``inside``), and what needs bus and database (``ready``)."""
    RegistryMirror(
        names.MIRROR,
        RegistryMirrorArgs(
            context=context,
            mirror_identity=identities.mirror,
            sweep_identity=identities.sweep,
            sweep_schedule=settings.registry.sweep_schedule,
            mirroring=settings.registry.mirroring,
        ),
        inside,
    )
    BackupSchedule(
        "backup-schedule",
        BackupScheduleArgs(
            context=context,
            writer=identities.backup,
            completer=identities.completion,
            restorer=identities.drill,
            watcher=identities.watch,
            schedule=settings.backups.schedule,
            completion_schedule=settings.backups.completion_schedule,
            drill_schedule=settings.backups.drill_schedule,
            drill_space_gibibytes=settings.backups.drill_space_gib,
            drill_storage_class=settings.backups.drill_storage_class,
        ),
        ready,
    )
    EncryptionSchedule(
        "encryption-schedule",
        EncryptionScheduleArgs(
            context=context,
            destruction_schedule=settings.audit.destruction_schedule,
            checkpoints=Checkpoints(
                identity=identities.checkpoint,
                bucket=clouds.audit,
                signing_key_secret=settings.audit.signing_key_secret,
                schedule=settings.audit.checkpoint_schedule,
            )
            if identities.checkpoint and settings.audit.signing_key_secret
            else None,
        ),
        ready,
    )
