"""Alerts on the platform's own parts: outbox, change capture, encryption, gateway, sampling.

Each threshold stands beside its alert, with the reason where the number does not speak for itself.
A part that has gone silent alerts as well: an absent series compares as nothing, so what must
always report has an ``absent()`` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilo.observe import foreign, metrics
from kilo.observe.alerts import Alert, grown

OUTBOX_WORKER = "outbox-worker"
CONSUMER = "consumer"
"""The workloads, whose names are the jobs of their series."""
_GIBIBYTE = 2**30
_DAY_SECONDS = 86_400


def outbox_alerts() -> list[Alert]:
    """Alert on events that wait, are lost or can't be published."""
    age, watermark = metrics.OUTBOX_OLDEST_AGE.name, metrics.OUTBOX_WATERMARK_AGE.name
    reconciled = metrics.OUTBOX_RECONCILE_LAST_SUCCESS.name
    return [
        Alert(
            "OutboxLag",
            f"max({age}) > 60",
            "page",
            "The oldest event has waited in the outbox for {{ $value | humanizeDuration }}",
            "2m",
        ),
        Alert(
            "OutboxWorkerDown",
            # The reconciler is made of the same modules and exports the gauge too, at 0.
            f'absent({metrics.OUTBOX_ROWS_WAITING.name}{{job="{OUTBOX_WORKER}"}})',
            "page",
            "No outbox worker reports",
            "3m",
        ),
        Alert(
            "OutboxWatermarkHeld",
            f"max({watermark}) > 300",
            "ticket",
            "A transaction open for {{ $value | humanizeDuration }} holds back the outbox and its clean-up",
            "5m",
        ),
        Alert(
            "OutboxPublishErrors",
            f"sum(rate({metrics.OUTBOX_PUBLISH_ERRORS.name}[5m])) > 0",
            "ticket",
            "The bus has refused publishes for ten minutes",
            "10m",
        ),
        Alert(
            "OutboxBlockedKey",
            f"max({metrics.OUTBOX_BLOCKED_KEYS.name}) > 0",
            "ticket",
            "{{ $value }} ordering keys are blocked by an event that can't be published",
            "5m",
        ),
        Alert(
            "OutboxEventsLost",
            f"max({metrics.OUTBOX_LOST.name}) > 0",
            "page",
            "{{ $value }} events were dispatched and are not on the bus",
        ),
        Alert(
            "OutboxReconcilerStale",
            f"time() - max({reconciled}) > 900",
            "ticket",
            "Outbox and stream were last compared {{ $value | humanizeDuration }} ago",
            "5m",
        ),
    ]


def capture_alerts() -> list[Alert]:
    """Alert on a connector that is down and on WAL that piles up behind it."""
    lag, limit = metrics.REPLICATION_SLOT_LAG.name, metrics.REPLICATION_SLOT_LIMIT.name
    return [
        Alert(
            "CdcConnectorDown",
            f"max by (slot) ({metrics.REPLICATION_SLOT_ACTIVE.name}) == 0",
            "page",
            "No connector streams from the replication slot {{ $labels.slot }}",
            "3m",
        ),
        Alert(
            "SlotWalRetention",
            f"max by (slot) ({lag}) > {_GIBIBYTE}",
            "ticket",
            "The replication slot {{ $labels.slot }} retains {{ $value | humanize1024 }}B of WAL",
            "5m",
        ),
        # Beyond its limit PostgreSQL drops the slot, and events not yet streamed go with it.
        Alert(
            "SlotNearLoss",
            f"max by (slot) ({lag}) > on () group_left () (0.5 * max({limit}) > 0)",
            "page",
            "The replication slot {{ $labels.slot }} has used half of the WAL it may retain",
            "1m",
        ),
    ]


def consumer_alerts() -> list[Alert]:
    """Alert on consumers that stand still and on dead letters."""
    return [
        Alert(
            "ConsumerStalled",
            # What is only tried again or parked moves the position on, and nothing has its effect.
            # Each consumer by itself: another that is well says nothing about this one.
            f"max by (job) ({metrics.CONSUMER_EVENTS_PENDING.name}) > 0 unless on (job) "
            f'sum by (job) (rate({metrics.CONSUMER_EVENTS.name}{{outcome=~"handled|duplicate"}}[5m])) > 0',
            "page",
            "{{ $value }} events are pending for {{ $labels.job }} and none has its effect",
            "5m",
        ),
        Alert(
            "ConsumerDown",
            # What is pending is said by the consumer itself: without one, nothing is.
            f'absent({metrics.CONSUMER_EVENTS_PENDING.name}{{job="{CONSUMER}"}})',
            "page",
            "No consumer reports",
            "3m",
        ),
        # By what lies in the table, not by the counter: a process that starts counts from 0.
        Alert(
            "ConsumerBehindRetention",
            f"max by (consumer) ({metrics.CONSUMER_GAP_EVENTS.name}) > 0",
            "page",
            "{{ $value }} messages were gone before consumer {{ $labels.consumer }} had read them",
        ),
        Alert(
            "DeadLetters",
            grown(metrics.DEAD_LETTERS.name, "kind, tenant", "10m"),
            "ticket",
            "Events of kind {{ $labels.kind }} of {{ $labels.tenant }} were parked as dead letters",
        ),
        Alert(
            "DeadLettersWaiting",
            f"sum by (kind, tenant) ({metrics.DEAD_LETTERS_WAITING.name}) > 0",
            "ticket",
            "Dead letters of {{ $labels.tenant }} ({{ $labels.kind }}) have waited for a day",
            "1d",
        ),
    ]


@dataclass(frozen=True, slots=True)
class EncryptionSchedule:
    """The longest time between two checkpoints, and between two looks for keys to destroy."""

    checkpoint_seconds: int = 3600
    destruction_seconds: int = _DAY_SECONDS


HOURLY = EncryptionSchedule()


def encryption_alerts(schedule: EncryptionSchedule) -> list[Alert]:
    """Alert on fields that can't be read, on encrypted fields stored in plain text, on work not done."""
    return [
        Alert(
            "FleDecryptFailures",
            grown(metrics.FLE_DECRYPT_FAILURES.name, "tenant, reason", "10m"),
            "page",
            "Fields of {{ $labels.tenant }} could not be decrypted: {{ $labels.reason }}",
        ),
        Alert(
            "TenantKeyDisabled",
            f'max by (tenant) ({metrics.FLE_KMS_KEY_STATE.name}{{state=~"disabled|gone"}}) == 1',
            "page",
            "The KMS key of {{ $labels.tenant }} is disabled or gone: its fields can't be read",
        ),
        # While it waits, deletion can still be cancelled; afterwards nothing brings the data back.
        Alert(
            "TenantKeyDeletionScheduled",
            f'max by (tenant) ({metrics.FLE_KMS_KEY_STATE.name}{{state="pending-deletion"}}) == 1',
            "page",
            "The KMS key of {{ $labels.tenant }} is scheduled for deletion",
        ),
        Alert(
            "FleCoverageIncomplete",
            f"min by (tenant, field) ({metrics.FLE_COVERAGE.name}) < 1",
            "ticket",
            "Of {{ $labels.tenant }}'s {{ $labels.field }}, {{ $value | humanizePercentage }} lies encrypted",
            "1h",
        ),
        # Encrypted without being configured so, or plain though configured to be encrypted.
        Alert(
            "FleScopeMismatch",
            f"max({metrics.FLE_SCOPE_MISMATCHES.name}) > 0",
            "ticket",
            "{{ $value }} fields lie otherwise than the stage's configuration says",
            "1h",
        ),
        # Until it is signed, whoever owns the database can rewrite an entry unseen. An hour's grace.
        Alert(
            "FleCheckpointOverdue",
            f"max({metrics.FLE_AUDIT_UNSIGNED_AGE.name}) > {schedule.checkpoint_seconds + 3600}",
            "ticket",
            "An entry of the audit log has waited for a checkpoint for {{ $value | humanizeDuration }}",
        ),
        # A day's grace.
        Alert(
            "FleDestructionOverdue",
            f"max({metrics.FLE_DESTRUCTION_OVERDUE.name}) > {schedule.destruction_seconds + _DAY_SECONDS}",
            "ticket",
            "A retired key should have been destroyed {{ $value | humanizeDuration }} ago",
        ),
    ]


def gateway_alerts() -> list[Alert]:
    """Alert on a gateway that is down, sheds load or refuses its configuration."""
    rejected = (
        foreign.ENVOY_ROUTES_REJECTED,
        foreign.ENVOY_CLUSTERS_REJECTED,
        foreign.ENVOY_LIMITS_REJECTED,
        foreign.ENVOY_RUNTIME_REJECTED,
    )
    blocked = foreign.ENVOY_CONCURRENCY_BLOCKED.name
    full = f'{foreign.GATEWAY_REFUSED.name}{{reason="overload"}}'
    counted, uncounted = foreign.ENVOY_LIMITS_COUNTED.name, foreign.ENVOY_LIMITS_UNCOUNTED.name
    return [
        Alert("GatewayDown", f"absent({foreign.ENVOY_LIVE.name} == 1)", "page", "No gateway is alive", "2m"),
        Alert(
            "GatewayConfigRejected",
            " or ".join(grown(series.name, "", "15m") for series in rejected),
            "page",
            "A gateway refused its new configuration and runs on with the old one",
        ),
        Alert(
            "GatewayShedding",
            f"sum(rate({blocked}[5m])) > 0 or sum(rate({full}[5m])) > 0",
            "ticket",
            "The gateway sheds {{ $value | humanize }} requests a second to protect latency",
            "10m",
        ),
        Alert(
            "LimitsUncounted",
            # One that is asked and late now and then is none that is away.
            f"sum(rate({uncounted}[5m])) > 0.05 * (sum(rate({counted}[5m])) or vector(0))",
            "ticket",
            "{{ $value | humanize }} requests a second are limited by each gateway alone: the rate limit "
            "service does not answer",
            "5m",
        ),
        Alert(
            "RetryBudgetSpent",
            f"sum by (envoy_cluster_name) (rate({foreign.ENVOY_RETRIES_REFUSED.name}[5m])) > 0",
            "ticket",
            "Retries to {{ $labels.envoy_cluster_name }} are held back by their budget",
            "10m",
        ),
    ]


def sampling_alerts() -> list[Alert]:
    """Alert on tenants whose spans exceed their allowance."""
    return [
        Alert(
            "SamplingGuardTripped",
            f"max by (tenant, attribute) ({metrics.SAMPLING_GUARD_TRIPPED.name}) == 1",
            "ticket",
            "{{ $labels.tenant }} is over its span allowance because of {{ $labels.attribute }}",
            "5m",
        ),
    ]


def process_alerts() -> list[Alert]:
    """Alert on any scraped process that no longer answers."""
    return [
        Alert(
            "TargetDown",
            f"{foreign.UP.name} == 0",
            "ticket",
            "{{ $labels.job }} at {{ $labels.instance }} does not answer its metrics endpoint",
            "5m",
        ),
    ]
