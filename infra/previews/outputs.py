"""The outputs that a preview's pods read: of the stage's contract, and nothing of the stage's own in them.

Where the contract asks for what a preview has not, such as a registry or a bucket, stands a name that leads
nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from components.pods.database_role import roles_of
from components.processes.message_bus import bus_url
from components.processes.own_database import DATABASE, PORT
from components.processes.tenant_gateway import gateway_url
from infra import names
from infra.previews.settings import TENANT, PreviewSettings
from kilo.bus.roles import bus_secrets
from kilo.callers import database_secret
from kilo.contract import BusOutputs, StackOutputs

NOWHERE = "nowhere.invalid"
"""Never resolves (RFC 2606)."""


def stream_of(settings: PreviewSettings) -> str:
    """The stream of its events: its own name, on a bus of its own, so that no log confuses two."""
    return settings.name.upper()


def bus_outputs(settings: PreviewSettings) -> BusOutputs:
    """Its own bus."""
    stream = stream_of(settings)
    return BusOutputs(
        url=bus_url(names.BUS, settings.namespace),
        stream=stream,
        subject_prefix=settings.name,
        heartbeat_stream=f"{stream}-HEARTBEATS",
        duplicate_window_seconds=120,
        role_secrets={**bus_secrets()},
    )


def render_outputs(
    settings: PreviewSettings, database_host: str, key: Mapping[str, Any]
) -> pulumi.Output[str]:
    """The document as its pods read it, once the key of its tenant is known."""
    document = _document(settings, database_host, key)
    return pulumi.Output.from_input(document).apply(
        lambda values: StackOutputs.model_validate(values).model_dump_json(indent=1) + "\n"
    )


def no_key(settings: PreviewSettings) -> dict[str, Any]:
    """The reference of a preview whose service encrypts nothing."""
    return {"provider": "aws", "key": NOWHERE, "alias": f"alias/{settings.name}"}


def _document(settings: PreviewSettings, database_host: str, key: Mapping[str, Any]) -> dict[str, Any]:
    namespace = settings.namespace
    bucket = {
        "provider": "aws",
        "bucket": NOWHERE,
        "location": NOWHERE,
        "lock_mode": "governance",
        "retention_days": 1,
    }
    registry = {"provider": "aws", "url": NOWHERE, "location": NOWHERE}
    tenant = settings.tenant
    return {
        "stage": settings.name,
        "namespace": namespace,
        "tenants": {
            TENANT: {
                "tier": tenant.tier,
                "encryption_key": key,
                "encrypted_fields": list(tenant.encrypted_fields) if settings.encryption else [],
                "spans_per_second": tenant.spans_per_second,
            }
        },
        "database": {
            "host": database_host,
            "port": PORT,
            "name": DATABASE,
            "role_secrets": {role: database_secret(role) for role in roles_of(usage=False)},
        },
        "bus": bus_outputs(settings).model_dump(mode="json"),
        "outbox": {
            "table": "outbox",
            "publication": "outbox_cdc",
            "replication_slot": "outbox_cdc",
            "payload_limit_bytes": 262_144,
            "fingerprint_window_days": 7,
        },
        "gateway": {"url": gateway_url(names.GATEWAY, namespace), "tenant_header": settings.tenant_header},
        "registries": {
            "primary": registry,
            "secondary": {**registry, "provider": "gcp"},
            "repositories": [],
            "push_queue_url": NOWHERE,
        },
        "backups": {
            "primary": bucket,
            "secondary": {**bucket, "provider": "gcp", "lock_mode": "unlocked"},
            "encryption_key": key,
        },
        "audit": bucket,
        "monitoring": {"prometheus_url": settings.prometheus_url},
    }
