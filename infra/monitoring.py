"""What is seen of the stage: rules, dashboards and alert routes.

Takes the settings and the namespace that holds it; gives nothing that another step needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import islice, pairwise
from typing import Any

import pulumi
from croniter import croniter

from components.observability.monitoring import Monitoring, MonitoringArgs
from components.pods.stage_namespace import StageNamespace
from components.processes.usage import PORT_NAME
from infra import names
from infra.settings import Settings
from kilo.observe.alertmanager import render_routes
from kilo.observe.copies import BackupSchedule
from kilo.observe.dashboards import render_dashboards
from kilo.observe.platform import EncryptionSchedule
from kilo.observe.rules import render_rules

_RUNS = 750
"""A month of hourly runs, two years of daily ones."""


def create_monitoring(settings: Settings, namespace: StageNamespace) -> None:
    """Register what Prometheus, Alertmanager and Grafana read of the stage."""
    alerts = settings.monitoring.alerts
    Monitoring(
        "monitoring",
        MonitoringArgs(
            namespace=settings.namespace,
            rules=_alert_rules(settings),
            dashboards=render_dashboards(),
            alert_routes=render_routes(alerts.webhook_secret) if alerts else None,
            gateway=names.GATEWAY,
            labels=settings.monitoring.labels,
            gateway_scrape_seconds=settings.monitoring.gateway_scrape_seconds,
            gateway_usage_port=PORT_NAME if settings.usage else None,
        ),
        pulumi.ResourceOptions(depends_on=[namespace]),
    )


def _alert_rules(settings: Settings) -> Mapping[str, Any]:
    """The spec of the PrometheusRule."""
    schedule = BackupSchedule(
        backup_seconds=_longest_gap_seconds(settings.backups.schedule),
        drill_seconds=_longest_gap_seconds(settings.backups.drill_schedule),
    )
    encryption = EncryptionSchedule(
        checkpoint_seconds=_longest_gap_seconds(settings.audit.checkpoint_schedule),
        destruction_seconds=_longest_gap_seconds(settings.audit.destruction_schedule),
    )
    return render_rules(settings.stage, settings.namespace, backups=schedule, encryption=encryption)


@cache
def _longest_gap_seconds(schedule: str) -> int:
    """The longest time between two runs of a cron schedule of five fields."""
    runs: Iterator[datetime] = croniter(schedule, datetime(2026, 1, 1, tzinfo=UTC), ret_type=datetime)
    times = list(islice(runs, _RUNS))
    return max(int((later - earlier).total_seconds()) for earlier, later in pairwise(times))
