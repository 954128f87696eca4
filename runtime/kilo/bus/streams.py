"""The streams that a stage declares, as values that can be compared and applied.

Retention is by limits, never by interest: a consumer that does not exist yet must find the past. A full
stream refuses what is new (``discard: new``), so that nothing acknowledged is dropped to make room; the
outbox keeps what is refused and tries again.
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from kilo.contract import BusOutputs

_GIBIBYTE = 1 << 30
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """What differs between stages."""

    replicas: int = 1
    retention_days: int = 7
    max_gibibytes: int | None = None


def declare_streams(bus: BusOutputs, policy: StreamPolicy) -> list[StreamConfig]:
    """The streams of a stage: events, and Debezium's heartbeats."""
    window = float(bus.duplicate_window_seconds)
    events = StreamConfig(
        name=bus.stream,
        subjects=[f"{bus.subject_prefix}.>"],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW if policy.max_gibibytes else DiscardPolicy.OLD,
        max_age=policy.retention_days * _DAY,
        max_bytes=(policy.max_gibibytes or 0) * _GIBIBYTE or -1,
        storage=StorageType.FILE,
        num_replicas=policy.replicas,
        duplicate_window=min(window, policy.retention_days * _DAY),
        allow_atomic=True,
    )
    # Debezium ends when a topic of its own has no stream: 503 No Responders.
    heartbeat = StreamConfig(
        name=bus.heartbeat_stream,
        subjects=["heartbeat.>"],
        retention=RetentionPolicy.LIMITS,
        max_msgs_per_subject=10,
        max_age=3600.0,
        storage=StorageType.FILE,
        num_replicas=policy.replicas,
        duplicate_window=60.0,
    )
    return [events, heartbeat]


async def apply_streams(jetstream: JetStreamContext, streams: list[StreamConfig]) -> list[tuple[str, str]]:
    """Make what is missing and update what differs; returns each stream with what was done to it.

    Raises:
        nats.js.errors.APIError: the server refuses a change, as of the storage type.
    """
    done: list[tuple[str, str]] = []
    for stream in streams:
        name = stream.name or ""
        try:
            await jetstream.stream_info(name)
        except NotFoundError:
            await jetstream.add_stream(stream)
            done.append((name, "created"))
        else:
            await jetstream.update_stream(stream)
            done.append((name, "up to date"))
    return done
