"""How the dev stage is reached from here: the gateway, dashboards, the database, the bus and the buckets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kilo.contract import StackOutputs
from sandbox.daemon import Endpoints


def ways_in(project: Path, endpoints: Endpoints) -> list[tuple[str, str]]:
    """What is reached, and how, without a secret; empty until a stage was deployed.

    Commands take passwords and the cloud's endpoint from ``eval "$(kilo env)"``.
    """
    with suppress(OSError, ValueError):
        outputs = StackOutputs.model_validate_json((project / ".kilo" / "outputs.json").read_bytes())
        return [
            ("gateway", outputs.gateway.url),
            ("send an event", curl(outputs)),
            ("dashboards", "kilo dash"),
            ("PostgreSQL", f'{endpoints.database}: eval "$(kilo env)" && psql "$DATABASE_URL"'),
            ("bus", f'{outputs.bus.url}, stream {outputs.bus.stream}, user and CA: eval "$(kilo env)"'),
            (
                "S3",
                f'{endpoints.aws}, bucket {outputs.backups.primary.bucket}: eval "$(kilo env)" && aws s3 ls',
            ),
            ("Cloud Storage", f"{endpoints.gcs}, bucket {outputs.backups.secondary.bucket}"),
        ]
    return []


def curl(outputs: StackOutputs) -> str:
    """A line for the shell that sends one event of the first tenant, by name, that takes any."""
    tenant = min(name for name, about in outputs.tenants.items() if about.accepting)
    event = '{"aggregate": "order", "aggregate_id": "42", "kind": "order.paid", "payload": {"total": 12}}'
    return (
        f"curl -i {outputs.gateway.url}/v1/events -H '{outputs.gateway.tenant_header}: {tenant}'"
        f" -H \"Idempotency-Key: $(date +%s%N)\" -H 'Content-Type: application/json' -d '{event}'"
    )
