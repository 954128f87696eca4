"""Identities: who may do what in the clouds, one for each process that reaches them.

Takes the settings; gives :class:`Identities`. What each may do is said where the resource is, in
:mod:`infra.clouds`; which pods carry it, in :mod:`infra.cluster`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.processes.backup_schedule import BACKUP, COMPLETION, DRILL, WATCH
from components.processes.database_roles import SCHEMA_TASK
from components.processes.encryption_schedule import CHECKPOINT
from components.processes.key_making import KEY_MAKING
from components.processes.message_bus import STREAMS_TASK
from components.processes.registry_mirror import SWEEP
from infra import names
from infra.settings import Settings
from kilo.bus.roles import BusRole


@dataclass(frozen=True)
class Identities:
    """The processes' identities, named for what each does."""

    ingest: CloudIdentity
    consumer: CloudIdentity
    key_making: CloudIdentity
    mirror: CloudIdentity
    sweep: CloudIdentity
    backup: CloudIdentity
    completion: CloudIdentity
    drill: CloudIdentity
    watch: CloudIdentity
    checkpoint: CloudIdentity | None
    """Nobody signs checkpoints where the stage names no signing key."""
    schema: CloudIdentity
    """The Job that migrates the schema, which alone reads the database's administrator's URL."""
    bus: Mapping[BusRole, CloudIdentity]
    """Whoever uses a Kafka of Amazon that knows its users by IAM; nobody elsewhere."""


def create_identities(settings: Settings) -> Identities:
    """Register an identity for each process that reaches a cloud."""

    def identity(*service_accounts: str, google: bool = False) -> CloudIdentity:
        return CloudIdentity(
            service_accounts[0],
            CloudIdentityArgs(
                namespace=settings.namespace,
                service_accounts=service_accounts,
                role_name=f"kilo-{settings.stage}-{service_accounts[0]}",
                oidc_provider_arn=settings.aws.oidc_provider_arn,
                google_identity_provider=settings.gcp.workload_identity_provider if google else None,
                permissions_boundary=settings.aws.permissions_boundary,
            ),
        )

    consumer = identity(names.CONSUMER)
    return Identities(
        ingest=identity(names.INGEST, names.INGEST_NEXT),
        consumer=consumer,
        key_making=identity(KEY_MAKING),
        mirror=identity(names.MIRROR, google=True),
        sweep=identity(SWEEP, google=True),
        backup=identity(BACKUP, google=True),
        completion=identity(COMPLETION, google=True),
        drill=identity(DRILL, google=True),
        watch=identity(WATCH, google=True),
        checkpoint=identity(CHECKPOINT) if settings.audit.signing_key_secret else None,
        schema=identity(SCHEMA_TASK),
        bus={
            "worker": identity(f"{names.OUTBOX}-worker"),
            "reconciler": identity(f"{names.OUTBOX}-reconciler"),
            "cdc": identity(names.CHANGE_CAPTURE),
            "operator": identity(STREAMS_TASK),
            "consumer": consumer,
        }
        if settings.bus.msk_cluster
        else {},
    )
