"""The one list of metric names: what processes export, and what rules and dashboards may ask for.

A process makes its instruments from here (``OUTBOX_ROWS_WAITING.create(registry)``), so a name that
an alert needs can't be spelt differently where it is exported. A test holds every query of the
rules and dashboards against this list. Names follow the Prometheus naming practice
(https://prometheus.io/docs/practices/naming/): base units, ``_total`` on counters.

Labels are bounded by construction: tenants come from the tenant list, kinds and fields from code; and where
that fails, by a budget of values for each (:mod:`kilo.observe.sampling.labels`). Never label by aggregate id,
fingerprint or address. Left out: process and Python runtime metrics, which ``prometheus_client`` exports by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import ClassVar, Literal

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import REGISTRY, CollectorRegistry

from kilo.observe.sampling.labels import bounded

Kind = Literal["counter", "gauge", "histogram"]

_declared: dict[str, Metric] = {}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, meaning and label names."""

    kind: ClassVar[Kind]
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name in _declared:
            msg = f"metric {self.name} is declared twice"
            raise ValueError(msg)
        _declared[self.name] = self

    def series(self) -> tuple[str, ...]:
        """Name every series that a query may ask for."""
        return (self.name,)


class CounterMetric(Metric):
    """A count that only grows."""

    kind = "counter"

    def create(self, registry: CollectorRegistry) -> Counter:
        """Make the counter on ``registry``."""
        return bounded(Counter, self.name, self.help, self.labels, registry=registry, folded=_folded)


class GaugeMetric(Metric):
    """A value that goes up and down."""

    kind = "gauge"

    def create(self, registry: CollectorRegistry) -> Gauge:
        """Make the gauge on ``registry``."""
        return bounded(Gauge, self.name, self.help, self.labels, registry=registry, folded=_folded)


@dataclass(frozen=True, slots=True)
class HistogramMetric(Metric):
    """A distribution over fixed buckets."""

    kind: ClassVar[Kind] = "histogram"
    buckets: tuple[float, ...] = Histogram.DEFAULT_BUCKETS

    def create(self, registry: CollectorRegistry) -> Histogram:
        """Make the histogram on ``registry``."""
        return bounded(
            Histogram,
            self.name,
            self.help,
            self.labels,
            registry=registry,
            folded=_folded,
            buckets=self.buckets,
        )

    def series(self) -> tuple[str, ...]:
        """Name every series that a query may ask for."""
        return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))


_MILLISECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MINUTES = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

# Ingest.
INGEST_REQUESTS = CounterMetric(
    "ingest_requests_total", "Requests answered, by HTTP status.", ("tenant", "status")
)
INGEST_REQUEST_DURATION = HistogramMetric(
    "ingest_request_duration_seconds", "From request to answer.", ("tenant",), _MILLISECONDS
)
INGEST_EVENTS = CounterMetric(
    "ingest_events_total",
    "Events acknowledged; outcome is accepted, or duplicate where the key was known with the same content.",
    ("tenant", "outcome"),
)

# Services that run with kilo.web.
SERVICE_REQUESTS = CounterMetric(
    "service_requests_total",
    "Requests that a service answered, by HTTP status; 499 where the client left first.",
    ("service", "tenant", "method", "status"),
)
SERVICE_REQUEST_DURATION = HistogramMetric(
    "service_request_duration_seconds", "From request to answer.", ("service", "tenant"), _MILLISECONDS
)

# What tenants are promised, exported from the stage's file by `kilo slo exporter`.
OBJECTIVE_BUDGET = GaugeMetric(
    "tenant_objective_budget_ratio",
    "Share of requests that may be bad; objective is availability or latency.",
    ("tenant", "objective"),
)
OBJECTIVE_LATENCY_EDGE = GaugeMetric(
    "tenant_objective_latency_edge_milliseconds",
    "The threshold of the latency objective, with the edge of the bucket that counts it in either spelling.",
    ("tenant", "le"),
)
TENANT_LIMIT = GaugeMetric(
    "tenant_limit_requests_per_second", "How many requests the gateway lets through.", ("tenant",)
)

# Outbox, exported by the worker.
OUTBOX_OLDEST_AGE = GaugeMetric(
    "outbox_oldest_undequeued_age_seconds",
    "Age of the oldest outbox row that is not dispatched; 0 when none.",
)
OUTBOX_ROWS_WAITING = GaugeMetric("outbox_rows_waiting", "Outbox rows that are not dispatched.")
OUTBOX_WATERMARK_AGE = GaugeMetric(
    "outbox_watermark_age_seconds", "Age of the oldest open transaction, below which alone rows may be read."
)
OUTBOX_WATERMARK_BLOCKING_PID = GaugeMetric(
    "outbox_watermark_blocking_pid", "PostgreSQL backend that holds the watermark; 0 when none."
)
OUTBOX_DEAD_TUPLES = GaugeMetric("outbox_dead_tuples", "Dead tuples of the outbox table and its partitions.")
OUTBOX_BLOCKED_KEYS = GaugeMetric(
    "outbox_blocked_keys", "Ordering keys whose next event can't be published, so that later ones are held."
)
OUTBOX_STUCK_AGGREGATES = GaugeMetric(
    "outbox_stuck_aggregates", "The former name of outbox_blocked_keys, for this release."
)
OUTBOX_PUBLISHED = CounterMetric(
    "outbox_published_total", "Events published, by worker or cdc.", ("publisher",)
)
OUTBOX_PUBLISH_ERRORS = CounterMetric("outbox_publish_errors_total", "Publishes that were not acknowledged.")
OUTBOX_DUPLICATES_SUPPRESSED = CounterMetric(
    "outbox_duplicates_suppressed_total", "Publishes that the bus acknowledged as duplicates."
)
OUTBOX_PUBLISH_DURATION = HistogramMetric(
    "outbox_publish_duration_seconds", "From reading a batch to marking it.", (), _MILLISECONDS
)

# Change capture and the reconciler.
REPLICATION_SLOT_LAG = GaugeMetric(
    "replication_slot_lag_bytes",
    "WAL that the slot retains: current position minus confirmed position.",
    ("slot",),
)
REPLICATION_SLOT_ACTIVE = GaugeMetric(
    "replication_slot_active", "1 while a connector streams from the slot.", ("slot",)
)
REPLICATION_SLOT_LIMIT = GaugeMetric(
    "replication_slot_limit_bytes", "max_slot_wal_keep_size, beyond which the slot is lost; 0 when unlimited."
)
OUTBOX_LOST = GaugeMetric(
    "outbox_lost_events", "Rows found in the last five minutes that the stream did not hold; must be 0."
)
OUTBOX_RECONCILED = CounterMetric(
    "outbox_reconciled_total", "Missing events that the reconciler published again."
)
OUTBOX_RECONCILE_LAST_SUCCESS = GaugeMetric(
    "outbox_reconcile_last_success_timestamp_seconds", "When the reconciler last compared outbox and stream."
)

# Consumers and dead letters.
CONSUMER_EVENTS = CounterMetric(
    "consumer_events_total",
    "Deliveries; outcome is handled, duplicate, retried or parked.",
    ("kind", "outcome"),
)
CONSUMER_DELIVERY_LATENCY = HistogramMetric(
    "consumer_delivery_latency_seconds",
    "From an event's creation to its handler.",
    ("publisher",),
    _MILLISECONDS,
)
CONSUMER_HANDLER_DURATION = HistogramMetric(
    "consumer_handler_duration_seconds",
    "Inbox write and handler, in one transaction.",
    ("kind",),
    _MILLISECONDS,
)
CONSUMER_EVENTS_PENDING = GaugeMetric("consumer_events_pending", "Events of the stream not yet delivered.")
CONSUMER_EVENTS_LOST = CounterMetric(
    "consumer_events_lost_total", "Messages that the stream gave up before they were read.", ("consumer",)
)
CONSUMER_GAP_EVENTS = GaugeMetric(
    "consumer_gap_events", "Messages that were gone unread and have not been refilled.", ("consumer",)
)
CONSUMER_PARKED_AGGREGATES = GaugeMetric(
    "consumer_parked_aggregates", "Ordering keys whose events are held behind a dead letter."
)
DEAD_LETTERS = CounterMetric("dead_letters_total", "Events parked as dead letters.", ("kind", "tenant"))
DEAD_LETTERS_WAITING = GaugeMetric(
    "dead_letters_waiting", "Dead letters neither replayed nor discarded.", ("kind", "tenant")
)
DEAD_LETTERS_REPLAYED = CounterMetric(
    "dead_letters_replayed_total", "Dead letters replayed.", ("kind", "tenant")
)

# Field-level encryption.
FLE_OPERATIONS = CounterMetric(
    "fle_operations_total",
    "Fields encrypted and decrypted; operation is encrypt or decrypt.",
    ("tenant", "operation"),
)
FLE_DECRYPT_FAILURES = CounterMetric(
    "fle_decrypt_failures_total", "Fields that could not be decrypted.", ("tenant", "reason")
)
FLE_KMS_CALLS = CounterMetric(
    "fle_kms_calls_total", "Calls to the key management service.", ("tenant", "operation")
)
FLE_KMS_CALL_DURATION = HistogramMetric(
    "fle_kms_call_duration_seconds",
    "Time of a call to the key management service.",
    ("operation",),
    _MILLISECONDS,
)
FLE_KMS_KEY_STATE = GaugeMetric(
    "fle_kms_key_state",
    "1 for the state that the tenant's KMS key is in: enabled, disabled, pending-deletion or gone.",
    ("tenant", "state"),
)
FLE_DATA_KEY_CACHE = CounterMetric(
    "fle_data_key_cache_total", "Look-ups of a data key; result is hit or miss.", ("tenant", "result")
)
FLE_COVERAGE = GaugeMetric(
    "fle_coverage_ratio",
    "Share of the field's stored values that are encrypted, 0 to 1.",
    ("tenant", "field"),
)
FLE_SCOPE_MISMATCHES = GaugeMetric(
    "fle_scope_mismatches",
    "Fields that are stored otherwise than the stage's configuration says; `kilo fle coverage`.",
)
FLE_ROTATION_ROWS_REMAINING = GaugeMetric(
    "fle_rotation_rows_remaining", "Values not yet under the newest data key; 0 when none.", ("tenant",)
)
FLE_ROTATION_LAST_SUCCESS = GaugeMetric(
    "fle_rotation_last_success_timestamp_seconds", "When the tenant's last rotation finished.", ("tenant",)
)
FLE_AUDIT_UNSIGNED_AGE = GaugeMetric(
    "fle_audit_unsigned_age_seconds",
    "Age of the oldest entry of the audit log without a checkpoint; 0 when none.",
)
FLE_DESTRUCTION_OVERDUE = GaugeMetric(
    "fle_key_destruction_overdue_seconds",
    "How long the oldest key that is due to be destroyed has been; 0 when none.",
)

# Registry mirror.
MIRROR_LAG = GaugeMetric(
    "registry_mirror_lag_seconds",
    "Age of the oldest push that is not yet whole in the secondary registry; 0 when none.",
    ("repository",),
)
MIRROR_DURATION = HistogramMetric(
    "registry_mirror_duration_seconds",
    "From a push to its whole graph in the secondary.",
    ("repository",),
    _MINUTES,
)
MIRROR_DRIFT = GaugeMetric(
    "registry_mirror_drift",
    "Last found: drift, missing, missing_attestation, extra, unreachable, unreadable, quarantined.",
    ("repository", "finding"),
)
MIRROR_COPIES = CounterMetric(
    "registry_mirror_copies_total",
    "Pushes handled; outcome is copied, present, failed, quarantined or deferred.",
    ("repository", "outcome"),
)
MIRROR_BYTES = CounterMetric(
    "registry_mirror_bytes_total", "Bytes of blobs and manifests copied.", ("repository",)
)
MIRROR_PARKED = GaugeMetric(
    "registry_mirror_parked_pushes", "Pushes in the dead-letter queue, after every delivery failed."
)
MIRROR_ERRORS = CounterMetric(
    "registry_mirror_errors_total",
    "Failures that the worker survived; loop is queue, push, visibility or comparison.",
    ("loop",),
)
MIRROR_COMPARED_LAST_SUCCESS = GaugeMetric(
    "registry_compared_last_success_timestamp_seconds",
    "When the worker last compared both registries in full.",
)

# Backups. Exported from stored manifests by a long-lived process, since a finished Job can't be scraped.
BACKUP_LAST_SUCCESS = GaugeMetric(
    "backup_last_success_timestamp_seconds", "When the store last received a whole backup.", ("store",)
)
BACKUP_LAST_FAILURE = GaugeMetric(
    "backup_last_failure_timestamp_seconds",
    "When a backup to the store last failed; 0 when never.",
    ("store",),
)
BACKUP_DURATION = GaugeMetric("backup_duration_seconds", "Time that the last backup took.")
BACKUP_SIZE = GaugeMetric("backup_size_bytes", "Size of the last whole backup.", ("store",))
BACKUP_LAST_VERIFIED = GaugeMetric(
    "backup_last_verified_timestamp_seconds",
    "When a restore from the store last matched its manifest.",
    ("store",),
)
BACKUP_DRILL_RECOVERY_TIME = GaugeMetric(
    "backup_drill_recovery_time_seconds", "Recovery time (RTO) that the last drill measured.", ("store",)
)
BACKUP_DRILL_RECOVERY_POINT = GaugeMetric(
    "backup_drill_recovery_point_seconds", "Age of the data that the last drill restored (RPO).", ("store",)
)

# The sampling guard, of spans and of label values.
SAMPLING_GUARD_TRIPPED = GaugeMetric(
    "sampling_guard_tripped", "1 while the tenant's spans are over their allowance.", ("tenant", "attribute")
)
SAMPLING_SPANS = CounterMetric("sampling_spans_total", "Spans that reached the guard.", ("tenant",))
SAMPLING_KEPT_SPANS = CounterMetric(
    "sampling_kept_spans_total",
    "Spans kept; reason is share (by the tenant's threshold), allowed or failed.",
    ("tenant", "reason"),
)
SAMPLING_OVERFLOW_SPANS = CounterMetric(
    "sampling_overflow_spans_total",
    "Spans counted in the overflow instead of kept, by the attribute whose values had grown.",
    ("tenant", "attribute"),
)
SAMPLING_KEPT_RATIO = GaugeMetric(
    "sampling_kept_ratio", "Share of its spans that the tenant's strictest threshold keeps now.", ("tenant",)
)
SAMPLING_FAILURES = CounterMetric(
    "sampling_guard_failures_total", "Spans dropped because deciding about them failed."
)
USAGE_ENTRIES = CounterMetric("usage_entries_total", "Requests that were added to the usage tables.")
USAGE_UNREADABLE = CounterMetric(
    "usage_unreadable_lines_total", "Lines of gateways' usage files that were torn."
)
USAGE_WAITING_BYTES = GaugeMetric(
    "usage_waiting_bytes", "What a gateway has written for usage and is not yet added."
)
USAGE_DROPPED_BYTES = CounterMetric(
    "usage_dropped_bytes_total", "Usage files deleted unread, for want of room while the database was away."
)
USAGE_COUNTED = GaugeMetric(
    "usage_counted_timestamp_seconds",
    "Up to when the platform's own usage is counted; what names it.",
    ("what",),
)
METRIC_LABELS_FOLDED = CounterMetric(
    "metric_labels_folded_total",
    "Samples whose label value was beyond its budget and became other.",
    ("metric", "label"),
)


@cache
def _folds() -> Counter:
    return Counter(
        METRIC_LABELS_FOLDED.name,
        METRIC_LABELS_FOLDED.help,
        METRIC_LABELS_FOLDED.labels,
        registry=REGISTRY,
    )


def _folded(metric: str, label: str) -> None:
    _folds().labels(metric, label).inc()


CATALOGUE: Mapping[str, Metric] = MappingProxyType(_declared)
"""Every metric that a process of the platform exports, by name."""
