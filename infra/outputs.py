"""Outputs: what services may know, which is what the stack exports.

Takes the settings and the clouds; exports :class:`~kilo.contract.StackOutputs`, whole and nothing else, and
gives it as :class:`Outputs` to the pods. Values that are known before anything is made come from the
settings, so that a preview shows them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pulumi

from components.clouds.backup_vault import BackupVault
from components.clouds.tenant_keys import TenantKey, TenantKeys
from components.pods.database_role import roles_of
from components.processes.message_bus import bus_url
from components.processes.tenant_gateway import gateway_url
from infra import names
from infra.clouds import Clouds
from infra.settings import Settings
from kilo.bus.roles import bus_secrets
from kilo.callers import database_secret
from kilo.contract import (
    CONTRACT_VERSION,
    BusOutputs,
    EncryptedTable,
    FieldEncryptionOutputs,
    OutboxOutputs,
    StackOutputs,
)
from kilo.sensitive import TABLE as EVENTS


@dataclass(frozen=True)
class Outputs:
    """The outputs as pods get them, and what tells that they changed."""

    json: pulumi.Output[str]
    """The file that services read."""
    checksum: pulumi.Output[str]
    """Of all but the tenants."""
    tenants_checksum: pulumi.Output[str]


def export_outputs(settings: Settings, clouds: Clouds) -> Outputs:
    """Export every field of the contract, and nothing else."""
    document = _document(settings, clouds)
    for field in StackOutputs.model_fields:
        pulumi.export(field, document[field])
    return Outputs(
        json=_file(document),
        checksum=_checksum({**document, "tenants": None}),
        tenants_checksum=_checksum(document["tenants"]),
    )


def _document(settings: Settings, clouds: Clouds) -> dict[str, Any]:
    """The outputs as the contract has them, with outputs of resources as leaves."""
    keys, registry, vault, audit = clouds.keys, clouds.registry, clouds.vault, clouds.audit
    backups = settings.backups
    return {
        "contract_version": CONTRACT_VERSION,
        "stage": settings.stage,
        "namespace": settings.namespace,
        "tenants": {
            tenant.id: {
                "tier": tenant.tier,
                "encryption_key": _key_reference(keys.keys[tenant.id]),
                "encrypted_fields": list(tenant.encrypted_fields),
                "accepting": tenant.accepting,
                "spans_per_second": tenant.spans_per_second,
            }
            for tenant in settings.resolved_tenants
        },
        "database": {
            "host": settings.database.host,
            "port": settings.database.port,
            "name": settings.database.name,
            "schema_name": settings.database.schema_name,
            "role_secrets": {
                role: database_secret(role) for role in roles_of(usage=settings.usage is not None)
            },
        },
        "bus": bus_outputs(settings).model_dump(mode="json"),
        "outbox": outbox_outputs(settings).model_dump(mode="json"),
        "gateway": {
            "url": gateway_url(names.GATEWAY, settings.namespace, tls=settings.gateway.tls is not None),
            "tenant_header": settings.gateway.tenant_header,
        },
        "registries": {
            "primary": {"provider": "aws", "url": registry.primary_url, "location": settings.aws.region},
            "secondary": {"provider": "gcp", "url": registry.secondary_url, "location": settings.gcp.region},
            "repositories": list(settings.registry.every_repository),
            "push_queue_url": registry.push_queue_url,
            "push_dead_letter_queue_url": registry.dead_letter_queue_url,
            "replicas": [
                {"provider": "aws", "url": url, "location": region}
                for region, url in registry.replica_urls.items()
            ],
            "signers": settings.registry.signers.model_dump(mode="json"),
        },
        "backups": {
            "primary": {
                "provider": "aws",
                "bucket": vault.primary.bucket,
                "location": settings.aws.region,
                "lock_mode": backups.primary.lock_mode,
                "retention_days": backups.lock_days,
            },
            "secondary": {
                "provider": "gcp",
                "bucket": vault.secondary.bucket,
                "location": settings.gcp.region,
                "lock_mode": "locked" if backups.secondary.locked else "unlocked",
                "retention_days": backups.lock_days,
            },
            "encryption_key": {"provider": "aws", "key": vault.key_arn, "alias": vault.key_alias},
            "signing_key": {
                "provider": "aws",
                "key": vault.signing_key_arn,
                "alias": vault.signing_key_alias,
            },
            **_replica(settings, vault),
        },
        "audit": {
            "provider": "aws",
            "bucket": audit.bucket,
            "location": settings.aws.region,
            "lock_mode": settings.audit.lock_mode,
            "retention_days": settings.audit.lock_days,
        },
        "field_encryption": _with_former_keys(_field_encryption_outputs(settings), keys),
        "monitoring": {
            "prometheus_url": settings.monitoring.prometheus_url,
            "key_spans": list(settings.monitoring.key_spans),
        },
    }


def bus_outputs(settings: Settings) -> BusOutputs:
    """Where the bus is and what is declared on it."""
    if kafka := settings.bus.kafka:
        prefix = names.KAFKA_TOPIC
        return BusOutputs(
            url=f"kafka://{','.join(kafka.brokers)}",
            # A stream is the topic that events are published to.
            stream=prefix,
            subject_prefix=prefix,
            heartbeat_stream=f"heartbeat.{prefix}",
            duplicate_window_seconds=settings.bus.duplicate_window_seconds,
            role_secrets={**kafka.access.secret_names} if kafka.access else {},
        )
    return BusOutputs(
        url=bus_url(names.BUS, settings.namespace),
        stream="EVENTS",
        subject_prefix="events",
        heartbeat_stream="HEARTBEATS",
        duplicate_window_seconds=settings.bus.duplicate_window_seconds,
        role_secrets={**bus_secrets()},
    )


def outbox_outputs(settings: Settings) -> OutboxOutputs:
    """What the outbox is called in the database, and who publishes what."""
    return OutboxOutputs(
        table="outbox",
        cdc_aggregates=settings.outbox.cdc_aggregates,
        publication="outbox_cdc",
        replication_slot="outbox_cdc",
        payload_limit_bytes=settings.outbox.payload_limit_bytes,
        fingerprint_window_days=settings.outbox.fingerprint_window_days,
        events_keep_days=settings.ingest.keep_days,
    )


def _field_encryption_outputs(settings: Settings) -> FieldEncryptionOutputs:
    """Field encryption as configured, with what the platform itself knows: its own table, and its bus.

    Rotation must reach every value: one that it left behind could not be read once the old key is gone.
    """
    configured = settings.field_encryption
    fields = sorted({field for tenant in settings.resolved_tenants for field in tenant.encrypted_fields})
    tables = configured.tables
    if all(each.table != EVENTS for each in tables):
        events = EncryptedTable(
            table=EVENTS, context=EVENTS, row_column="fingerprint", documents={"payload": tuple(fields)}
        )
        tables = (events, *tables)
    in_flight = max(configured.in_flight_days, settings.bus.retention_days)
    return configured.model_copy(update={"tables": tables, "in_flight_days": in_flight})


def _key_reference(key: TenantKey) -> dict[str, Any]:
    named = {"provider": "aws", "key": key.arn, "alias": key.alias}
    return {**named, "replicas": list(key.replicas)} if key.replicas else named


def _with_former_keys(outputs: FieldEncryptionOutputs, keys: TenantKeys) -> dict[str, Any]:
    """Field encryption's outputs, with tenants' former KMS keys as second ones where those are kept.

    So processes open what either has wrapped, whichever outputs they started with.
    """
    document = outputs.model_dump(mode="json")
    former = {
        tenant: {"provider": "aws", "key": key.former, "alias": key.former}
        for tenant, key in keys.keys.items()
        if key.former
    }
    return {**document, "second_keys": {**document["second_keys"], **former}}


def _replica(settings: Settings, vault: BackupVault) -> dict[str, Any]:
    """What the vault has in another region, if anything."""
    backups = settings.backups
    if backups.replica is None or vault.replica is None:
        return {}
    return {
        "replica": {
            "provider": "aws",
            "bucket": vault.replica.bucket,
            "location": backups.replica.region,
            "lock_mode": backups.primary.lock_mode,
            "retention_days": backups.lock_days,
        },
        "encryption_key_replica": {
            "provider": "aws",
            "key": vault.replica_key_arn,
            "alias": vault.key_alias,
        },
        "signing_key_replica": {
            "provider": "aws",
            "key": vault.replica_signing_key_arn,
            "alias": vault.signing_key_alias,
        },
    }


def _file(document: dict[str, Any]) -> pulumi.Output[str]:
    """The document as the file that services read, once all of it is known.

    Raises:
        pydantic.ValidationError: while applying, if it is not what the contract says.
    """
    return pulumi.Output.from_input(document).apply(
        lambda values: StackOutputs.model_validate(values).model_dump_json(indent=1) + "\n"
    )


def _checksum(part: Any) -> pulumi.Output[str]:
    """SHA-256 of a part of the document, in hexadecimal; known before the deployment if all of it is."""
    text = pulumi.Output.json_dumps(part, sort_keys=True)
    return text.apply(lambda known: hashlib.sha256(known.encode()).hexdigest())
