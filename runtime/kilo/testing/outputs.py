"""Outputs of a stage that exists in tests alone."""

from __future__ import annotations

from urllib.parse import urlsplit

from kilo.contract import StackOutputs

_REGION = "eu-central-1"


def make_outputs(database_url: str, bus_url: str) -> StackOutputs:
    """Outputs that name the given database and bus.

    Args:
        database_url: PostgreSQL with Kilo's tables.
        bus_url: as :func:`kilo.bus.connect.connect` takes it.
    """
    database = urlsplit(database_url)
    bucket = {
        "provider": "aws",
        "bucket": "none",
        "location": _REGION,
        "lock_mode": "governance",
        "retention_days": 1,
    }
    registry = {"provider": "aws", "url": "registry.invalid/kilo", "location": _REGION}
    return StackOutputs.model_validate(
        {
            "stage": "test",
            "namespace": "kilo-test",
            "tenants": {
                "acme": _tenant("acme", "gold", ("email", "phone")),
                "globex": _tenant("globex", "bronze", ()),
            },
            "database": {
                "host": database.hostname or "",
                "port": database.port or 5432,
                "name": database.path.lstrip("/"),
                "role_secrets": {},
            },
            "bus": {
                "url": bus_url,
                "stream": "EVENTS",
                "subject_prefix": "events",
                "heartbeat_stream": "HEARTBEAT",
                "duplicate_window_seconds": 120,
            },
            "outbox": {
                "table": "outbox",
                "publication": "outbox_pub",
                "replication_slot": "outbox",
                "payload_limit_bytes": 262_144,
                "fingerprint_window_days": 7,
            },
            "gateway": {"url": "http://gateway.invalid", "tenant_header": "x-tenant-id"},
            "registries": {
                "primary": registry,
                "secondary": registry,
                "repositories": [],
                "push_queue_url": "",
            },
            "backups": {"primary": bucket, "secondary": bucket, "encryption_key": _key("backups")},
            "audit": bucket,
            "monitoring": {"prometheus_url": "http://prometheus.invalid"},
        }
    )


def _tenant(tenant: str, tier: str, encrypted_fields: tuple[str, ...]) -> dict[str, object]:
    return {"tier": tier, "encryption_key": _key(tenant), "encrypted_fields": encrypted_fields}


def _key(name: str) -> dict[str, str]:
    arn = f"arn:aws:kms:{_REGION}:000000000000:key/{name}"
    return {"provider": "aws", "key": arn, "alias": f"alias/{name}"}
