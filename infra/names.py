"""The names that workloads go by, in one place: the gateway must find ingest, the bus admits its clients."""

from __future__ import annotations

from components.processes.ingest import NEXT_SUFFIX

BUS = "nats"
KAFKA = "kafka"
KAFKA_TOPIC = "events"
CHANGE_CAPTURE = "debezium"
COLLECTOR = "otel-collector"
CONSUMER = "consumer"
GATEWAY = "gateway"
INGEST = "ingest"
INGEST_NEXT = f"{INGEST}{NEXT_SUFFIX}"
MIRROR = "registry-mirror"
OUTBOX = "outbox"
RATE_LIMITS = "rate-limits"

BUS_CLIENTS = (CHANGE_CAPTURE, CONSUMER, f"{OUTBOX}-worker", f"{OUTBOX}-reconciler")
SPAN_SENDERS = (INGEST, f"{OUTBOX}-worker", CONSUMER)
"""What exports spans where the stage has a collector."""


def feature(name: str) -> str:
    """The workload of a feature's next version."""
    return f"{INGEST}-{name}"
