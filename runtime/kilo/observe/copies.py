"""Alerts on what is kept twice: images in both registries, backups in both stores."""

from __future__ import annotations

from dataclasses import dataclass

from kilo.observe import metrics
from kilo.observe.alerts import Alert, grown

_DAY_SECONDS = 86_400
_DIFFERENT = "drift|missing|missing_attestation|unreadable"
"""Findings of a comparison that mean that the secondary can't stand in for the primary."""


def registry_alerts() -> list[Alert]:
    """Alert on a secondary registry that is behind or not the same."""
    drift = metrics.MIRROR_DRIFT.name
    return [
        # The goal is five minutes from push to mirrored.
        Alert(
            "MirrorLag",
            f"max by (repository) ({metrics.MIRROR_LAG.name}) > 300",
            "ticket",
            "A push to {{ $labels.repository }} has not been mirrored for {{ $value | humanizeDuration }}",
        ),
        Alert(
            "MirrorDrift",
            f'max by (repository, finding) ({drift}{{finding=~"{_DIFFERENT}"}}) > 0',
            "ticket",
            "{{ $labels.repository }} differs between the registries: {{ $labels.finding }}",
            "10m",
        ),
        Alert(
            "MirrorUnreachable",
            f'max by (repository) ({drift}{{finding="unreachable"}}) > 0',
            "ticket",
            "{{ $labels.repository }} could not be compared: a registry does not answer",
            "15m",
        ),
        Alert(
            "MirrorQuarantined",
            f'max by (repository) ({drift}{{finding="quarantined"}}) > 0',
            "ticket",
            "{{ $labels.repository }} has images that are not signed as required, and are not mirrored",
            "15m",
        ),
        Alert(
            "MirrorPushesParked",
            f"max({metrics.MIRROR_PARKED.name}) > 0",
            "ticket",
            "{{ $value }} pushes could not be mirrored and are parked in the dead-letter queue",
        ),
        Alert(
            "MirrorErrors",
            grown(metrics.MIRROR_ERRORS.name, "loop", "30m", 2),
            "ticket",
            "The mirror worker keeps failing at {{ $labels.loop }}",
        ),
        Alert(
            "MirrorNotCompared",
            f"time() - max({metrics.MIRROR_COMPARED_LAST_SUCCESS.name}) > 10800",
            "ticket",
            "The registries were last compared in full {{ $value | humanizeDuration }} ago",
            # A worker that has just started has compared nothing yet.
            "15m",
        ),
    ]


@dataclass(frozen=True, slots=True)
class BackupSchedule:
    """The longest time between two backups, and between two restore drills, that a stage plans for."""

    backup_seconds: int = _DAY_SECONDS
    drill_seconds: int = 7 * _DAY_SECONDS


DAILY = BackupSchedule()


def backup_alerts(schedule: BackupSchedule) -> list[Alert]:
    """Alert on backups that are missed, failed, slow, unverified or smaller than usual."""
    success, failure = metrics.BACKUP_LAST_SUCCESS.name, metrics.BACKUP_LAST_FAILURE.name
    verified, duration, size = (
        metrics.BACKUP_LAST_VERIFIED.name,
        metrics.BACKUP_DURATION.name,
        metrics.BACKUP_SIZE.name,
    )
    return [
        # Two hours' grace. A store without any backup has the time 0, which is long ago.
        Alert(
            "BackupMissed",
            f"time() - max by (store) ({success}) > {schedule.backup_seconds + 2 * 3600}",
            "page",
            "The {{ $labels.store }} store has had no whole backup for {{ $value | humanizeDuration }}",
            # A stage that was just brought up has none, until the first look after its first.
            lasting="15m",
        ),
        # Whoever watches the stores is gone, and the other alerts on backups are blind.
        Alert(
            "BackupsUnwatched",
            f"absent({success})",
            "page",
            "Nothing reports on the backups",
            lasting="15m",
        ),
        Alert(
            "BackupFailed",
            f"max by (store) ({failure}) > max by (store) ({success})",
            "ticket",
            "The last backup to the {{ $labels.store }} store failed",
        ),
        Alert(
            "BackupSlow",
            f"max({duration}) > 600 and max({duration}) > 2 * max(avg_over_time({duration}[7d]))",
            "ticket",
            "The last backup took {{ $value | humanizeDuration }}, twice the usual",
        ),
        # A day's grace.
        Alert(
            "BackupUnverified",
            f"time() - max by (store) ({verified}) > {schedule.drill_seconds + _DAY_SECONDS}",
            "ticket",
            "No restore from the {{ $labels.store }} store was proven for {{ $value | humanizeDuration }}",
            lasting="15m",
        ),
        Alert(
            "BackupShrunk",
            f"min by (store) ({size}) < 0.7 * max by (store) (max_over_time({size}[7d]))",
            "ticket",
            "The last backup in the {{ $labels.store }} store is far smaller than those before it",
        ),
    ]
