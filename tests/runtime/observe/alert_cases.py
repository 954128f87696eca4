"""What each alert is tried with: series in which it fires, and others in which it is silent."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Series that make an alert fire for exactly the given labels, and others that leave it silent.

    Values are promtool's: ``0+3x20`` is 0, 3, … 60, one value a step.
    """

    alert: str
    fires: dict[str, str]
    silent: dict[str, str]
    summary: str
    labels: dict[str, str] = field(default_factory=dict)
    at: str = "20m"
    step: str = "30s"


REQUESTS = 'envoy_gateway_requests_total{tenant="acme", version="stable", status="%d"}'
OK, FAILED, THROTTLED = REQUESTS % 200, REQUESTS % 503, REQUESTS % 429
BACKUP_AGE = f"0x{27 * 12}"
CASES = [
    Case(
        "TenantUnserved",
        {FAILED: "0+1x100"},
        {FAILED: "0+1x100", OK: "0+1x100"},
        "Every request of acme has failed for half an hour",
        {"tenant": "acme"},
        at="40m",
    ),
    Case(
        "TenantThrottled",
        {OK: "0+98x60", THROTTLED: "0+2x60"},
        {OK: "0+995x60", THROTTLED: "0+5x60"},
        "acme has 2% of its requests refused with 429",
        {"tenant": "acme"},
    ),
    Case(
        "TenantNearLimit",
        {OK: "0+2850x100"},
        {OK: "0+2550x100"},
        "acme uses 95% of its request limit",
        {"tenant": "acme"},
        at="45m",
    ),
    Case(
        "ObjectivesUnknown",
        {},
        {'tenant_objective_budget_ratio{tenant="acme", objective="latency"}': "0.01x60"},
        "Nothing says what tenants are promised",
    ),
    Case(
        "OutboxLag",
        {"outbox_oldest_undequeued_age_seconds": "90x60"},
        {"outbox_oldest_undequeued_age_seconds": "50x60"},
        "The oldest event has waited in the outbox for 1m 30s",
    ),
    Case(
        "OutboxWorkerDown",
        # What is made of the same modules is no worker.
        {'outbox_rows_waiting{job="outbox-reconciler"}': "0x60"},
        {'outbox_rows_waiting{job="outbox-worker"}': "0x60"},
        "No outbox worker reports",
        {"job": "outbox-worker"},
    ),
    Case(
        "OutboxWatermarkHeld",
        {"outbox_watermark_age_seconds": "600x60"},
        {"outbox_watermark_age_seconds": "200x60"},
        "A transaction open for 10m 0s holds back the outbox and its clean-up",
    ),
    Case(
        "OutboxPublishErrors",
        {"outbox_publish_errors_total": "0+1x60"},
        {"outbox_publish_errors_total": "7x60"},
        "The bus has refused publishes for ten minutes",
    ),
    Case(
        "OutboxBlockedKey",
        {"outbox_blocked_keys": "2x60"},
        {"outbox_blocked_keys": "0x60"},
        "2 ordering keys are blocked by an event that can't be published",
    ),
    Case(
        "OutboxEventsLost",
        {"outbox_lost_events": "1x60"},
        {"outbox_lost_events": "0x60"},
        "1 events were dispatched and are not on the bus",
    ),
    Case(
        "OutboxReconcilerStale",
        {"outbox_reconcile_last_success_timestamp_seconds": "0x60"},
        {"outbox_reconcile_last_success_timestamp_seconds": "0+30x60"},
        "Outbox and stream were last compared 25m 0s ago",
        at="25m",
    ),
    Case(
        "CdcConnectorDown",
        {'replication_slot_active{slot="outbox"}': "0x60"},
        {'replication_slot_active{slot="outbox"}': "0x4 1x56"},
        "No connector streams from the replication slot outbox",
        {"slot": "outbox"},
    ),
    Case(
        "SlotWalRetention",
        {'replication_slot_lag_bytes{slot="outbox"}': f"{2 * 2**30}x60"},
        {'replication_slot_lag_bytes{slot="outbox"}': f"{2**29}x60"},
        "The replication slot outbox retains 2GiB of WAL",
        {"slot": "outbox"},
    ),
    Case(
        "SlotNearLoss",
        {'replication_slot_lag_bytes{slot="outbox"}': "600x60", "replication_slot_limit_bytes": "1000x60"},
        {'replication_slot_lag_bytes{slot="outbox"}': "600x60", "replication_slot_limit_bytes": "0x60"},
        "The replication slot outbox has used half of the WAL it may retain",
        {"slot": "outbox"},
    ),
    Case(
        "ConsumerStalled",
        {
            'consumer_events_pending{job="consumer"}': "5x60",
            'consumer_events_total{job="consumer", kind="a", outcome="handled"}': "9x60",
            'consumer_events_total{job="consumer", kind="a", outcome="retried"}': "0+1x60",
            'consumer_events_total{job="billing", kind="a", outcome="handled"}': "0+1x60",
        },
        {
            'consumer_events_pending{job="consumer"}': "5x60",
            'consumer_events_total{job="consumer", kind="a", outcome="handled"}': "0+1x60",
        },
        "5 events are pending for consumer and none has its effect",
        {"job": "consumer"},
    ),
    Case(
        "ConsumerDown",
        {'consumer_events_pending{job="billing"}': "0x60"},
        {'consumer_events_pending{job="consumer"}': "0x60"},
        "No consumer reports",
        {"job": "consumer"},
    ),
    Case(
        "ConsumerBehindRetention",
        {'consumer_gap_events{consumer="billing"}': "15x60"},
        {'consumer_gap_events{consumer="billing"}': "15x10 0x50"},
        "15 messages were gone before consumer billing had read them",
        {"consumer": "billing"},
    ),
    Case(
        "DeadLetters",
        {'dead_letters_total{kind="order.created", tenant="acme"}': "0x30 1x30"},
        {'dead_letters_total{kind="order.created", tenant="acme"}': "1x60"},
        "Events of kind order.created of acme were parked as dead letters",
        {"kind": "order.created", "tenant": "acme"},
    ),
    Case(
        "DeadLettersWaiting",
        {'dead_letters_waiting{kind="order.created", tenant="acme"}': "3x300"},
        {'dead_letters_waiting{kind="order.created", tenant="acme"}': "3x200 0x100"},
        "Dead letters of acme (order.created) have waited for a day",
        {"kind": "order.created", "tenant": "acme"},
        at="25h",
        step="5m",
    ),
    Case(
        "FleDecryptFailures",
        {'fle_decrypt_failures_total{tenant="acme", reason="tag"}': "0x30 2x30"},
        {'fle_decrypt_failures_total{tenant="acme", reason="tag"}': "2x60"},
        "Fields of acme could not be decrypted: tag",
        {"tenant": "acme", "reason": "tag"},
    ),
    Case(
        "TenantKeyDisabled",
        {'fle_kms_key_state{tenant="acme", state="disabled"}': "1x60"},
        {'fle_kms_key_state{tenant="acme", state="enabled"}': "1x60"},
        "The KMS key of acme is disabled or gone: its fields can't be read",
        {"tenant": "acme"},
    ),
    Case(
        "TenantKeyDeletionScheduled",
        {'fle_kms_key_state{tenant="acme", state="pending-deletion"}': "1x60"},
        {'fle_kms_key_state{tenant="acme", state="pending-deletion"}': "0x60"},
        "The KMS key of acme is scheduled for deletion",
        {"tenant": "acme"},
    ),
    Case(
        "FleCoverageIncomplete",
        {'fle_coverage_ratio{tenant="acme", field="email"}': "0.5x200"},
        {'fle_coverage_ratio{tenant="acme", field="email"}': "1x200"},
        "Of acme's email, 50% lies encrypted",
        {"tenant": "acme", "field": "email"},
        at="70m",
    ),
    Case(
        "FleScopeMismatch",
        {"fle_scope_mismatches{}": "2x200"},
        {"fle_scope_mismatches{}": "0x200"},
        "2 fields lie otherwise than the stage's configuration says",
        {},
        at="70m",
    ),
    Case(
        "FleCheckpointOverdue",
        {"fle_audit_unsigned_age_seconds{}": "7260x60"},
        {"fle_audit_unsigned_age_seconds{}": "7140x60"},
        "An entry of the audit log has waited for a checkpoint for 2h 1m 0s",
        {},
    ),
    Case(
        "FleDestructionOverdue",
        {"fle_key_destruction_overdue_seconds{}": "180000x60"},
        {"fle_key_destruction_overdue_seconds{}": "172000x60"},
        "A retired key should have been destroyed 2d 2h 0m 0s ago",
        {},
    ),
    Case(
        "MirrorLag",
        {'registry_mirror_lag_seconds{repository="kilo"}': "420x60"},
        {'registry_mirror_lag_seconds{repository="kilo"}': "299x60"},
        "A push to kilo has not been mirrored for 7m 0s",
        {"repository": "kilo"},
    ),
    Case(
        "MirrorDrift",
        {'registry_mirror_drift{repository="kilo", finding="missing_attestation"}': "1x60"},
        {
            'registry_mirror_drift{repository="kilo", finding="missing_attestation"}': "0x60",
            'registry_mirror_drift{repository="kilo", finding="extra"}': "4x60",
        },
        "kilo differs between the registries: missing_attestation",
        {"repository": "kilo", "finding": "missing_attestation"},
    ),
    Case(
        "MirrorQuarantined",
        {'registry_mirror_drift{repository="kilo", finding="quarantined"}': "2x60"},
        {'registry_mirror_drift{repository="kilo", finding="quarantined"}': "0x60"},
        "kilo has images that are not signed as required, and are not mirrored",
        {"repository": "kilo"},
    ),
    Case(
        "MirrorPushesParked",
        {"registry_mirror_parked_pushes": "3x60"},
        {"registry_mirror_parked_pushes": "0x60"},
        "3 pushes could not be mirrored and are parked in the dead-letter queue",
        {},
    ),
    Case(
        "MirrorUnreachable",
        {'registry_mirror_drift{repository="kilo", finding="unreachable"}': "1x60"},
        {'registry_mirror_drift{repository="kilo", finding="unreachable"}': "1x20 0x40"},
        "kilo could not be compared: a registry does not answer",
        {"repository": "kilo"},
    ),
    Case(
        "MirrorErrors",
        {'registry_mirror_errors_total{loop="comparison"}': "0+0.2x60"},
        {'registry_mirror_errors_total{loop="comparison"}': "0x10 1x50"},
        "The mirror worker keeps failing at comparison",
        {"loop": "comparison"},
    ),
    Case(
        "MirrorNotCompared",
        {"registry_compared_last_success_timestamp_seconds": "0x500"},
        {"registry_compared_last_success_timestamp_seconds": "0x300 9000x200"},
        "The registries were last compared in full 4h 0m 0s ago",
        at="4h",
    ),
    Case(
        "BackupMissed",
        {'backup_last_success_timestamp_seconds{store="primary"}': BACKUP_AGE},
        {'backup_last_success_timestamp_seconds{store="primary"}': f"0x100 20000x{27 * 12 - 100}"},
        "The primary store has had no whole backup for 1d 3h 0m 0s",
        {"store": "primary"},
        at="27h",
        step="5m",
    ),
    Case(
        "BackupsUnwatched",
        {},
        {'backup_last_success_timestamp_seconds{store="primary"}': "0x60"},
        "Nothing reports on the backups",
    ),
    Case(
        "BackupFailed",
        {
            'backup_last_failure_timestamp_seconds{store="secondary"}': "900x60",
            'backup_last_success_timestamp_seconds{store="secondary"}': "600x60",
        },
        {
            'backup_last_failure_timestamp_seconds{store="secondary"}': "600x60",
            'backup_last_success_timestamp_seconds{store="secondary"}': "900x60",
        },
        "The last backup to the secondary store failed",
        {"store": "secondary"},
    ),
    Case(
        "BackupSlow",
        {"backup_duration_seconds": "400x50 1200x10"},
        {"backup_duration_seconds": "400x50 700x10"},
        "The last backup took 20m 0s, twice the usual",
        at="27m",
    ),
    Case(
        "BackupUnverified",
        {'backup_last_verified_timestamp_seconds{store="primary"}': f"0x{9 * 24}"},
        {'backup_last_verified_timestamp_seconds{store="primary"}': f"0x170 600000x{9 * 24 - 170}"},
        "No restore from the primary store was proven for 9d 0h 0m 0s",
        {"store": "primary"},
        at="9d",
        step="1h",
    ),
    Case(
        "BackupShrunk",
        {'backup_size_bytes{store="primary"}': "1000x30 600x30"},
        {'backup_size_bytes{store="primary"}': "1000x30 900x30"},
        "The last backup in the primary store is far smaller than those before it",
        {"store": "primary"},
    ),
    Case("GatewayDown", {"envoy_server_live": "0x60"}, {"envoy_server_live": "1x60"}, "No gateway is alive"),
    Case(
        "GatewayConfigRejected",
        {"envoy_cluster_manager_cds_update_rejected": "0x30 1x30"},
        {"envoy_cluster_manager_cds_update_rejected": "1x60"},
        "A gateway refused its new configuration and runs on with the old one",
    ),
    Case(
        "GatewayShedding",
        {"envoy_http_adaptive_concurrency_gradient_controller_rq_blocked": "0+60x60"},
        {"envoy_http_adaptive_concurrency_gradient_controller_rq_blocked": "60x60"},
        "The gateway sheds 2 requests a second to protect latency",
    ),
    Case(
        "GatewayShedding",
        {'envoy_gateway_refused_total{tenant="acme", reason="overload"}': "0+60x60"},
        {'envoy_gateway_refused_total{tenant="acme", reason="local_rate_limited"}': "0+60x60"},
        "The gateway sheds 2 requests a second to protect latency",
    ),
    Case(
        "LimitsUncounted",
        {
            'envoy_cluster_ratelimit_ok{envoy_cluster_name="stable/gold"}': "0+6x60",
            'envoy_cluster_ratelimit_error{envoy_cluster_name="stable/gold"}': "0+60x60",
        },
        {
            'envoy_cluster_ratelimit_ok{envoy_cluster_name="stable/gold"}': "0+600x60",
            'envoy_cluster_ratelimit_error{envoy_cluster_name="stable/gold"}': "0+6x60",
        },
        "2 requests a second are limited by each gateway alone: the rate limit service does not answer",
    ),
    Case(
        "RetryBudgetSpent",
        {'envoy_cluster_upstream_rq_retry_overflow{envoy_cluster_name="stable-gold"}': "0+1x60"},
        {'envoy_cluster_upstream_rq_retry_overflow{envoy_cluster_name="stable-gold"}': "3x60"},
        "Retries to stable-gold are held back by their budget",
        {"envoy_cluster_name": "stable-gold"},
    ),
    Case(
        "SamplingGuardTripped",
        {'sampling_guard_tripped{tenant="acme", attribute="sql.text"}': "1x60"},
        {'sampling_guard_tripped{tenant="acme", attribute="sql.text"}': "1x15 0x45"},
        "acme is over its span allowance because of sql.text",
        {"tenant": "acme", "attribute": "sql.text"},
    ),
    Case(
        "TargetDown",
        {'up{job="ingest", instance="a"}': "0x60"},
        {'up{job="ingest", instance="a"}': "0x5 1x55"},
        "ingest at a does not answer its metrics endpoint",
        {"job": "ingest", "instance": "a"},
    ),
]
