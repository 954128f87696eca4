"""The specification of the PrometheusRule object: recording rules and alerts of a stage.

It knows no tenant: what differs among them is in the series that rules join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kilo.observe import burns, copies, objectives, platform
from kilo.observe.alerts import Alert, Place, Record, render_group
from kilo.observe.scope import in_namespace, scoped

RUNBOOKS_URL = "docs/runbooks"
"""Where runbooks are unless a stage says otherwise: in this repository."""


@dataclass(frozen=True, slots=True)
class _Rules:
    interval: str
    rules: Sequence[Record | Alert]


def render_rules(
    stage: str,
    namespace: str,
    runbooks_url: str = RUNBOOKS_URL,
    backups: copies.BackupSchedule = copies.DAILY,
    encryption: platform.EncryptionSchedule = platform.HOURLY,
) -> dict[str, Any]:
    """Render ``spec`` of a PrometheusRule (monitoring.coreos.com/v1), also valid as a rules file.

    Args:
        stage: its name, a label on all that is recorded and alerted on.
        namespace: where it stands; rules see the series of that namespace alone, and keep it as a label, by
            which the Prometheus operator lets an alert reach the routes of the same namespace.
        runbooks_url: the directory that holds ``<alert>.md`` of each alert.
        backups: how often the stage plans backups and drills.
        encryption: how often it plans checkpoints and the destruction of keys.
    """
    recorded = recorded_names()
    place = Place(
        labels={"namespace": namespace, "stage": stage},
        scoped=lambda query: scoped(query, in_namespace(namespace), recorded),
        runbooks_url=runbooks_url,
    )
    return {
        "groups": [
            render_group(name, group.interval, group.rules, place)
            for name, group in _groups(backups, encryption).items()
        ]
    }


def every_alert() -> list[Alert]:
    """List every alert of a stage, in the order of its groups."""
    groups = _groups(copies.DAILY, platform.HOURLY).values()
    return [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]


def recorded_names() -> frozenset[str]:
    """Name every record."""
    groups = _groups(copies.DAILY, platform.HOURLY).values()
    return frozenset(rule.name for group in groups for rule in group.rules if isinstance(rule, Record))


def _groups(backups: copies.BackupSchedule, encryption: platform.EncryptionSchedule) -> Mapping[str, _Rules]:
    return {
        "kilo-tenant-records": _Rules("30s", objectives.fast_records()),
        "kilo-tenant-sums": _Rules("5m", objectives.slow_records()),
        "kilo-tenant-month": _Rules("15m", objectives.month_records()),
        "kilo-tenant-alerts": _Rules("30s", burns.tenant_alerts()),
        "kilo-outbox": _Rules("30s", platform.outbox_alerts()),
        "kilo-change-capture": _Rules("30s", platform.capture_alerts()),
        "kilo-consumers": _Rules("30s", platform.consumer_alerts()),
        "kilo-field-encryption": _Rules("30s", platform.encryption_alerts(encryption)),
        "kilo-registry": _Rules("30s", copies.registry_alerts()),
        "kilo-backups": _Rules("30s", copies.backup_alerts(backups)),
        "kilo-gateway": _Rules("30s", platform.gateway_alerts()),
        "kilo-sampling": _Rules("30s", platform.sampling_alerts()),
        "kilo-processes": _Rules("30s", platform.process_alerts()),
    }
