"""What the settings mean to the renderers of ``kilo``: one function a rendered file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from croniter import croniter

import kilo
from components.clouds.key_policy import DECRYPT, ENCRYPT, KeyUser
from components.pods.access import To
from components.pods.labels import service_host
from components.processes.change_capture import OFFSETS_FILE
from components.processes.ingest import PORT as INGEST_PORT
from components.processes.message_bus import DATA_DIRECTORY, bus_url, member_host
from infra import names
from infra.settings import Settings
from kilo.bus.config import CLIENT_PORT, ROUTE_PORT, render_nats_config
from kilo.cdc.properties import ConnectorSettings, render_properties
from kilo.contract import BusOutputs, OutboxOutputs
from kilo.observe.alertmanager import render_routes
from kilo.observe.platform import BackupRhythm, EncryptionRhythm
from kilo.observe.rules import render_rules
from kilo.traffic.settings import GatewaySettings, Upstream

_RUNS = 750
"""A month of hourly runs, two years of daily ones."""


def gateway_settings(settings: Settings) -> GatewaySettings:
    """What Envoy is rendered from, besides the tenants."""

    def upstream(workload: str) -> Upstream:
        return Upstream(host=service_host(workload, settings.namespace), port=INGEST_PORT)

    return GatewaySettings(
        stable=upstream(names.INGEST),
        next=upstream(names.INGEST_NEXT) if settings.ingest.next_image else None,
        tenant_header=settings.gateway.tenant_header,
        replicas=settings.gateway.replicas,
        limits_enforced=settings.gateway.limits_enforced,
        shedding_enabled=settings.gateway.shedding_enabled,
    )


def key_users(settings: Settings) -> list[KeyUser]:
    """Who uses tenants' keys besides the platform's own workloads."""
    actions = {"encrypt": ENCRYPT, "decrypt": DECRYPT}
    return [
        KeyUser(
            user.name,
            user.role_arn,
            [action for each in ("encrypt", "decrypt") if each in user.can for action in actions[each]],
            None if user.tenants is None else frozenset(user.tenants),
        )
        for user in settings.aws.key_users
    ]


def bus_outputs(settings: Settings) -> BusOutputs:
    """Where the bus is and what is declared on it."""
    if kafka := settings.bus.kafka:
        prefix = "events"
        return BusOutputs(
            url=f"kafka://{','.join(kafka.brokers)}",
            # A stream is the topic that events are published to.
            stream=prefix,
            subject_prefix=prefix,
            heartbeat_stream=f"heartbeat.{prefix}",
            duplicate_window_seconds=settings.bus.duplicate_window_seconds,
        )
    return BusOutputs(
        url=bus_url(names.BUS, settings.namespace),
        stream="EVENTS",
        subject_prefix="events",
        heartbeat_stream="HEARTBEATS",
        duplicate_window_seconds=settings.bus.duplicate_window_seconds,
    )


def to_bus(settings: Settings) -> list[To]:
    """What a client of the bus connects to."""
    kafka = settings.bus.kafka
    if kafka is None:
        return [To(port=CLIENT_PORT, workload=names.BUS)]
    ports = sorted({int(broker.rpartition(":")[2]) for broker in kafka.brokers})
    return [To(port=port, network=kafka.network) for port in ports]


def outbox_outputs(settings: Settings) -> OutboxOutputs:
    """What the outbox is called in the database, and who publishes what."""
    return OutboxOutputs(
        table="outbox",
        cdc_aggregates=settings.outbox.cdc_aggregates,
        publication="outbox_cdc",
        replication_slot="outbox_cdc",
        payload_limit_bytes=settings.outbox.payload_limit_bytes,
        fingerprint_window_days=settings.outbox.fingerprint_window_days,
    )


def schema_checksum() -> str:
    """SHA-256 over the migrations' names and texts, in hexadecimal."""
    digest = hashlib.sha256()
    # By path: importing the migrator would bring a database driver into the program.
    for file in sorted((Path(kilo.__file__).parent / "database" / "migrations").glob("*.sql")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def nats_config(settings: Settings) -> str:
    """``nats.conf``. A single member has nobody to route to."""
    bus = settings.bus
    members = [member_host(names.BUS, index, settings.namespace) for index in range(bus.replicas)]
    return render_nats_config(
        store_directory=DATA_DIRECTORY,
        storage_gibibytes=bus.storage_gib,
        cluster_name=f"kilo-{settings.stage}",
        routes=[f"nats-route://{host}:{ROUTE_PORT}" for host in members] if bus.replicas > 1 else [],
    )


def streams_arguments(settings: Settings) -> list[str]:
    """The command line that declares the streams."""
    bus = settings.bus
    limits = {"replicas": bus.replicas, "retention-days": bus.retention_days}
    if bus.kafka is None:
        # The rest of the disk is for heartbeats and the server's own bookkeeping.
        limits["max-gibibytes"] = max(1, bus.storage_gib * 3 // 4)
    return ["bus", "apply", *(f"--{name}={value}" for name, value in limits.items())]


def debezium_properties(settings: Settings) -> str:
    """``application.properties``."""
    return render_properties(
        ConnectorSettings(
            bus=bus_outputs(settings), outbox=outbox_outputs(settings), offsets_file=OFFSETS_FILE
        )
    )


def alert_rules(settings: Settings) -> Mapping[str, Any]:
    """The spec of the PrometheusRule."""
    rhythm = BackupRhythm(
        backup_seconds=longest_gap_seconds(settings.backups.schedule),
        drill_seconds=longest_gap_seconds(settings.backups.drill_schedule),
    )
    encryption = EncryptionRhythm(
        checkpoint_seconds=longest_gap_seconds(settings.audit.checkpoint_schedule),
        destruction_seconds=longest_gap_seconds(settings.audit.destruction_schedule),
    )
    return render_rules(settings.resolved_tenants, backups=rhythm, encryption=encryption)


def longest_gap_seconds(schedule: str) -> int:
    """The longest time between two runs of a cron schedule of five fields."""
    runs: Iterator[datetime] = croniter(schedule, datetime(2026, 1, 1, tzinfo=UTC), ret_type=datetime)
    times = list(islice(runs, _RUNS))
    return max(int((later - earlier).total_seconds()) for earlier, later in pairwise(times))


def alert_routes(settings: Settings) -> Mapping[str, Any] | None:
    """The spec of the AlertmanagerConfig, if the stage names somebody to tell."""
    alerts = settings.monitoring.alerts
    return render_routes(alerts.webhook_secret) if alerts else None
