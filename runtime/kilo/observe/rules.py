"""The specification of the PrometheusRule object: recording rules and alerts of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kilo.observe import objectives, platform
from kilo.observe.alerts import Alert, Group, Record, render_group
from kilo.tenancy import Tenant

RUNBOOKS_URL = "docs/runbooks"
"""Where runbooks are unless a stage says otherwise: in this repository."""


def render_rules(
    tenants: Sequence[Tenant],
    runbooks_url: str = RUNBOOKS_URL,
    backups: platform.BackupSchedule = platform.DAILY,
    encryption: platform.EncryptionSchedule = platform.HOURLY,
) -> dict[str, Any]:
    """Render ``spec`` of a PrometheusRule (monitoring.coreos.com/v1), also valid as a rules file.

    Args:
        tenants: every tenant of the stage, resolved.
        runbooks_url: the directory that holds ``<alert>.md`` of each alert.
        backups: how often the stage plans backups and drills.
        encryption: how often it plans checkpoints and the destruction of keys.
    """
    groups: list[Group] = [
        render_group(name, rules, runbooks_url)
        for name, rules in _groups(tenants, backups, encryption).items()
        if rules
    ]
    return {"groups": groups}


def every_alert(tenants: Sequence[Tenant]) -> list[Alert]:
    """List every alert of a stage, in the order of its groups."""
    return [
        rule
        for rules in _groups(tenants, platform.DAILY, platform.HOURLY).values()
        for rule in rules
        if isinstance(rule, Alert)
    ]


def _groups(
    tenants: Sequence[Tenant], backups: platform.BackupSchedule, encryption: platform.EncryptionSchedule
) -> dict[str, Sequence[Record | Alert]]:
    return {
        "kilo-tenant-records": objectives.tenant_records(tenants),
        "kilo-tenant-alerts": objectives.tenant_alerts(tenants),
        "kilo-outbox": platform.outbox_alerts(),
        "kilo-change-capture": platform.capture_alerts(),
        "kilo-consumers": platform.consumer_alerts(),
        "kilo-field-encryption": platform.encryption_alerts(encryption),
        "kilo-registry": platform.registry_alerts(),
        "kilo-backups": platform.backup_alerts(backups),
        "kilo-gateway": platform.gateway_alerts(),
        "kilo-sampling": platform.sampling_alerts(),
        "kilo-processes": platform.process_alerts(),
    }
