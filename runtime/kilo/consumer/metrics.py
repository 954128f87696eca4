"""The consumer's instruments, one set a process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

from prometheus_client import REGISTRY

from kilo.consumer.event import Envelope
from kilo.observe import metrics


class ConsumerMetrics:
    """Counts what became of deliveries."""

    def __init__(self) -> None:
        self._events = metrics.CONSUMER_EVENTS.create(REGISTRY)
        self._latency = metrics.CONSUMER_DELIVERY_LATENCY.create(REGISTRY)
        self._duration = metrics.CONSUMER_HANDLER_DURATION.create(REGISTRY)
        self._parked = metrics.DEAD_LETTERS.create(REGISTRY)
        self._replayed = metrics.DEAD_LETTERS_REPLAYED.create(REGISTRY)
        self._lost = metrics.CONSUMER_EVENTS_LOST.create(REGISTRY)
        self.gap_events = metrics.CONSUMER_GAP_EVENTS.create(REGISTRY)
        self.pending = metrics.CONSUMER_EVENTS_PENDING.create(REGISTRY)
        self.held_aggregates = metrics.CONSUMER_PARKED_AGGREGATES.create(REGISTRY)
        self.dead_letters = metrics.DEAD_LETTERS_WAITING.create(REGISTRY)
        self._failing_since: float | None = None

    @property
    def failing_seconds(self) -> float:
        """How long attempts have failed here and none had its effect; 0 after one that had."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def failed(self) -> None:
        """Take note of an attempt that failed."""
        self._failing_since = self._failing_since or time.monotonic()

    @staticmethod
    @cache
    def shared() -> ConsumerMetrics:
        """The process's one set: a metric can be registered once."""
        return ConsumerMetrics()

    def count(self, kind: str, outcome: str) -> None:
        """Count one delivery."""
        self._events.labels(kind, outcome).inc()

    def handled(self, one: Envelope, latency_seconds: float, started: float) -> None:
        """Count an event whose handler did it; ``started`` is of ``time.perf_counter``.

        One that a clock ahead of ours dated took no time, not less: a sum that falls reads as a restart.
        """
        self._failing_since = None
        self._events.labels(one.kind, "handled").inc()
        self._latency.labels(one.publisher).observe(max(0.0, latency_seconds))
        self._duration.labels(one.kind).observe(time.perf_counter() - started)

    def written(self, events: Sequence[Envelope], seconds: float) -> None:
        """Count events whose statements were executed together; each has its share of the ``seconds``."""
        now, share = time.time(), seconds / len(events)
        self._failing_since = None
        for (kind, publisher), some in _grouped(events).items():
            self._events.labels(kind, "handled").inc(len(some))
            latency, duration = self._latency.labels(publisher), self._duration.labels(kind)
            for one in some:
                latency.observe(max(0.0, now - one.created_at.timestamp()))
                duration.observe(share)

    def lost(self, consumer: str, count: int) -> None:
        """Count messages that were gone before ``consumer`` had read them."""
        self._lost.labels(consumer).inc(count)

    def parked(self, one: Envelope) -> None:
        """Count a dead letter."""
        self._parked.labels(one.kind, one.tenant).inc()

    def replayed(self, one: Envelope) -> None:
        """Count a dead letter whose replay had its effect."""
        self._replayed.labels(one.kind, one.tenant).inc()


def _grouped(events: Sequence[Envelope]) -> dict[tuple[str, str], list[Envelope]]:
    found: dict[tuple[str, str], list[Envelope]] = {}
    for one in events:
        found.setdefault((one.kind, one.publisher), []).append(one)
    return found
