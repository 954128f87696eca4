"""What each dashboard shows: a page a capability, a panel a question, a query a line."""

from __future__ import annotations

from kilo.observe import foreign, metrics
from kilo.observe.goals_page import GOALS_PAGE
from kilo.observe.panels import TENANT, Page, Panel, largest, quantile, rate, since

_ANSWERED = metrics.SERVICE_REQUESTS.name
_ERRORS = 'status=~"5.."'


def _hit_ratio(tenants: str) -> str:
    cache = metrics.FLE_DATA_KEY_CACHE.name
    hits = rate(cache, "tenant", f'{tenants}, result="hit"')
    return f"{hits} / {rate(cache, 'tenant', tenants)}"


_DELIVERY = metrics.CONSUMER_DELIVERY_LATENCY.name
_DURATION = "tenant:request_duration_milliseconds"
_DRIFT = metrics.MIRROR_DRIFT.name
_REQUESTS = foreign.GATEWAY_REQUESTS.name

PAGES = (
    GOALS_PAGE,
    Page(
        "outbox",
        "Outbox",
        [
            Panel(
                "How long does the oldest event wait?", "s", {"age": f"max({metrics.OUTBOX_OLDEST_AGE.name})"}
            ),
            Panel("How many wait?", "short", {"rows": f"max({metrics.OUTBOX_ROWS_WAITING.name})"}),
            Panel(
                "How many leave?", "ops", {"{{publisher}}": rate(metrics.OUTBOX_PUBLISHED.name, "publisher")}
            ),
            Panel(
                "What goes wrong?",
                "ops",
                {
                    "publish errors": rate(metrics.OUTBOX_PUBLISH_ERRORS.name),
                    "duplicates suppressed": rate(metrics.OUTBOX_DUPLICATES_SUPPRESSED.name),
                    "reconciled": rate(metrics.OUTBOX_RECONCILED.name),
                },
            ),
            Panel("Is anything lost?", "short", {"events": f"max({metrics.OUTBOX_LOST.name})"}),
            Panel(
                "What holds it back?",
                "s",
                {"oldest transaction": f"max({metrics.OUTBOX_WATERMARK_AGE.name})"},
            ),
            Panel(
                "How much waits to be cleaned up?",
                "short",
                {"dead tuples": f"max({metrics.OUTBOX_DEAD_TUPLES.name})"},
            ),
            Panel(
                "Is any ordering key blocked?",
                "short",
                {"keys": f"max({metrics.OUTBOX_BLOCKED_KEYS.name})"},
            ),
        ],
    ),
    Page(
        "change-capture",
        "Change capture",
        [
            Panel(
                "How much goes by CDC?",
                "ops",
                {"events": rate(metrics.OUTBOX_PUBLISHED.name, "", 'publisher="cdc"')},
            ),
            Panel(
                "Does a connector stream?",
                "short",
                {"{{slot}}": largest(metrics.REPLICATION_SLOT_ACTIVE.name, "slot")},
            ),
            Panel(
                "How much WAL is retained?",
                "bytes",
                {
                    "{{slot}}": largest(metrics.REPLICATION_SLOT_LAG.name, "slot"),
                    "limit": f"max({metrics.REPLICATION_SLOT_LIMIT.name}) > 0",
                },
            ),
            Panel(
                "How late do consumers get it?",
                "s",
                {
                    f"p{share} {{{{publisher}}}}": quantile(share / 100, _DELIVERY, "publisher")
                    for share in (50, 99)
                },
            ),
        ],
    ),
    Page(
        "dead-letters",
        "Consumers and dead letters",
        [
            Panel(
                "What becomes of deliveries?",
                "ops",
                {"{{outcome}}": rate(metrics.CONSUMER_EVENTS.name, "outcome")},
            ),
            Panel(
                "How many are pending?", "short", {"events": f"max({metrics.CONSUMER_EVENTS_PENDING.name})"}
            ),
            Panel(
                "What is parked?",
                "ops",
                {"{{kind}} {{tenant}}": rate(metrics.DEAD_LETTERS.name, "kind, tenant")},
            ),
            Panel(
                "What waits for a decision?",
                "short",
                {"{{kind}} {{tenant}}": f"sum by (kind, tenant) ({metrics.DEAD_LETTERS_WAITING.name})"},
            ),
            Panel("What is replayed?", "ops", {"{{kind}}": rate(metrics.DEAD_LETTERS_REPLAYED.name, "kind")}),
            Panel(
                "How long do handlers take?",
                "s",
                {"p99 {{kind}}": quantile(0.99, metrics.CONSUMER_HANDLER_DURATION.name, "kind")},
            ),
        ],
    ),
    Page(
        "field-encryption",
        "Field encryption",
        [
            Panel(
                "How much lies encrypted?",
                "percentunit",
                {"{{tenant}} {{field}}": f"min by (tenant, field) ({metrics.FLE_COVERAGE.name}{{{TENANT}}})"},
            ),
            Panel(
                "How far is the rotation?",
                "short",
                {"{{tenant}} remaining": largest(metrics.FLE_ROTATION_ROWS_REMAINING.name, "tenant", TENANT)},
            ),
            Panel(
                "When was the last rotation?",
                "s",
                {"{{tenant}}": since(metrics.FLE_ROTATION_LAST_SUCCESS.name, "tenant")},
            ),
            Panel(
                "What waits for a checkpoint, or for destruction?",
                "s",
                {
                    "entries of the audit log": f"max({metrics.FLE_AUDIT_UNSIGNED_AGE.name})",
                    "keys that are due": f"max({metrics.FLE_DESTRUCTION_OVERDUE.name})",
                },
            ),
            Panel(
                "What can't be read?",
                "ops",
                {"{{tenant}} {{reason}}": rate(metrics.FLE_DECRYPT_FAILURES.name, "tenant, reason", TENANT)},
            ),
            Panel(
                "How much work is it?",
                "ops",
                {"{{tenant}} {{operation}}": rate(metrics.FLE_OPERATIONS.name, "tenant, operation", TENANT)},
            ),
            Panel(
                "How often is the KMS asked?",
                "ops",
                {"{{tenant}} {{operation}}": rate(metrics.FLE_KMS_CALLS.name, "tenant, operation", TENANT)},
            ),
        ],
        tenants=True,
    ),
    Page(
        "registry-mirror",
        "Registry mirror",
        [
            Panel(
                "How far behind is the secondary?",
                "s",
                {"{{repository}}": largest(metrics.MIRROR_LAG.name, "repository")},
            ),
            Panel("How long does a push take?", "s", {"p99": quantile(0.99, metrics.MIRROR_DURATION.name)}),
            Panel(
                "Where do they differ?",
                "short",
                {"{{repository}} {{finding}}": f"max by (repository, finding) ({_DRIFT}) > 0"},
            ),
            Panel(
                "What is copied?", "Bps", {"{{repository}}": rate(metrics.MIRROR_BYTES.name, "repository")}
            ),
            Panel(
                "What becomes of pushes?",
                "ops",
                {"{{outcome}}": rate(metrics.MIRROR_COPIES.name, "outcome")},
            ),
            Panel("How many pushes are parked?", "short", {"parked": f"max({metrics.MIRROR_PARKED.name})"}),
            Panel(
                "When was all compared?", "s", {"age": since(metrics.MIRROR_COMPARED_LAST_SUCCESS.name, "")}
            ),
        ],
    ),
    Page(
        "backups",
        "Backups",
        [
            Panel(
                "How old is the newest backup?",
                "s",
                {"{{store}}": since(metrics.BACKUP_LAST_SUCCESS.name, "store")},
            ),
            Panel(
                "How old is the last proven restore?",
                "s",
                {"{{store}}": since(metrics.BACKUP_LAST_VERIFIED.name, "store")},
            ),
            Panel("How large is it?", "bytes", {"{{store}}": largest(metrics.BACKUP_SIZE.name, "store")}),
            Panel("How long does it take?", "s", {"backup": f"max({metrics.BACKUP_DURATION.name})"}),
            Panel(
                "How soon would we be back?",
                "s",
                {
                    "recovery time {{store}}": largest(metrics.BACKUP_DRILL_RECOVERY_TIME.name, "store"),
                    "recovery point {{store}}": largest(metrics.BACKUP_DRILL_RECOVERY_POINT.name, "store"),
                },
            ),
        ],
    ),
    Page(
        "tenant-ramp",
        "Tenant ramp and shedding",
        [
            Panel(
                "Which version serves?",
                "reqps",
                {"{{tenant}} {{version}}": f"tenant_version:requests:rate5m{{{TENANT}}}"},
            ),
            Panel(
                "Which version fails?",
                "percentunit",
                {"{{tenant}} {{version}}": f"tenant_version:error_ratio:rate5m{{{TENANT}}}"},
            ),
            Panel(
                "Who is refused?", "percentunit", {"{{tenant}}": f"tenant:throttled_ratio:rate5m{{{TENANT}}}"}
            ),
            Panel(
                "Who is near the limit?",
                "percentunit",
                {"{{tenant}}": f"tenant:limit_utilisation:ratio_rate5m{{{TENANT}}}"},
            ),
            Panel(
                "What does the gateway shed?",
                "ops",
                {"requests": rate(foreign.ENVOY_CONCURRENCY_BLOCKED.name)},
            ),
            Panel(
                "How many retries?",
                "ops",
                {"{{envoy_cluster_name}}": rate(foreign.ENVOY_RETRIES.name, "envoy_cluster_name")},
            ),
        ],
        tenants=True,
    ),
    Page(
        "template-adoption",
        "Services of the template",
        [
            Panel(
                "How many services run?",
                "short",
                {"services": f"count(count by (service) ({_ANSWERED})) or vector(0)"},
            ),
            Panel("What do they answer?", "reqps", {"{{service}}": rate(_ANSWERED, "service")}),
            Panel(
                "How many answers are errors?",
                "percentunit",
                {
                    "{{service}}": f"{rate(_ANSWERED, 'service', _ERRORS)} / {rate(_ANSWERED, 'service')}"
                    f" or 0 * {rate(_ANSWERED, 'service')}"
                },
            ),
            Panel(
                "How long do they take?",
                "s",
                {"p99 {{service}}": quantile(0.99, metrics.SERVICE_REQUEST_DURATION.name, "service")},
            ),
        ],
    ),
    Page(
        "tenant-objectives",
        "Tenant objectives",
        [
            Panel(
                "How much budget is left?",
                "percentunit",
                {"{{tenant}}": f"tenant:availability_budget_remaining:ratio_30d{{{TENANT}}}"},
            ),
            Panel("How many requests?", "reqps", {"{{tenant}}": f"tenant:requests:rate5m{{{TENANT}}}"}),
            Panel("How many fail?", "percentunit", {"{{tenant}}": f"tenant:error_ratio:rate5m{{{TENANT}}}"}),
            Panel(
                "How many are too slow?",
                "percentunit",
                {"{{tenant}}": f"tenant:slow_ratio:rate5m{{{TENANT}}}"},
            ),
            Panel(
                "How long do they take?",
                "ms",
                {f"p{share} {{{{tenant}}}}": f"{_DURATION}:p{share}_5m{{{TENANT}}}" for share in (50, 99)},
            ),
            Panel(
                "What fires?",
                "short",
                {"{{alertname}} {{tenant}}": f'{foreign.ALERTS.name}{{alertstate="firing", {TENANT}}}'},
            ),
        ],
        tenants=True,
    ),
    Page(
        "usage",
        "Usage",
        [
            Panel(
                "What do tenants ask?",
                "reqps",
                {"{{tenant}} {{status}}": rate(_REQUESTS, "tenant, status", TENANT)},
            ),
            Panel(
                "How much do they send?",
                "Bps",
                {"{{tenant}}": rate(foreign.GATEWAY_RECEIVED_BYTES.name, "tenant", TENANT)},
            ),
            Panel(
                "How much do they get?",
                "Bps",
                {"{{tenant}}": rate(foreign.GATEWAY_SENT_BYTES.name, "tenant", TENANT)},
            ),
            Panel(
                "How many events?",
                "ops",
                {"{{tenant}} {{outcome}}": rate(metrics.INGEST_EVENTS.name, "tenant, outcome", TENANT)},
            ),
            Panel(
                "How often is the data key cached?",
                "percentunit",
                {"{{tenant}}": _hit_ratio(TENANT)},
            ),
            Panel(
                "What is not added up?",
                "bytes",
                {
                    "waits at {{pod}}": largest(metrics.USAGE_WAITING_BYTES.name, "pod"),
                    "dropped": f"sum({metrics.USAGE_DROPPED_BYTES.name})",
                },
            ),
            Panel(
                "How late is the rest counted?",
                "s",
                {"{{what}}": since(metrics.USAGE_COUNTED.name, "what")},
            ),
            Panel(
                "Who sends too many spans?",
                "ops",
                {
                    "{{tenant}} {{attribute}}": rate(
                        metrics.SAMPLING_OVERFLOW_SPANS.name, "tenant, attribute", TENANT
                    )
                },
            ),
            Panel(
                "Which spans are kept?",
                "ops",
                {"{{tenant}} {{reason}}": rate(metrics.SAMPLING_KEPT_SPANS.name, "tenant, reason", TENANT)},
            ),
            Panel(
                "Which labels have too many values?",
                "ops",
                {"{{metric}} {{label}}": rate(metrics.METRIC_LABELS_FOLDED.name, "metric, label")},
            ),
        ],
        tenants=True,
    ),
)
"""Every dashboard."""
