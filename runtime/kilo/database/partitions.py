"""How long outbox, inbox, events and usage keep their rows: an administrator writes it, roles obey."""

from __future__ import annotations

from typing import Any

import psycopg

from kilo.contract import OutboxOutputs


def declare_windows(connection: psycopg.Connection[Any], outbox: OutboxOutputs) -> None:
    """Have the outbox know fingerprints for the stage's window, and the inbox twice as long.

    Twice, since replays of the stream must find what was consumed. Ingest's own rows are kept for good unless
    the stage says otherwise, and no shorter than their fingerprints, by which a retry is compared with them.

    Args:
        connection: an administrator's, in autocommit mode.
        outbox: the stage's.
    """
    days, keep = outbox.fingerprint_window_days, outbox.events_keep_days
    if keep is None:
        connection.execute("DELETE FROM partition_windows WHERE parent = 'events'")
    else:
        connection.execute(
            "INSERT INTO partition_windows VALUES ('events', %s)"
            " ON CONFLICT (parent) DO UPDATE SET days = excluded.days",
            (max(days, keep),),
        )
    windows = {"outbox": days, "inbox": 2 * days}
    for parent, window in windows.items():
        connection.execute("UPDATE partition_windows SET days = %s WHERE parent = %s", (window, parent))


def declare_usage_windows(
    connection: psycopg.Connection[Any], hours_keep_days: int | None, days_keep_days: int | None
) -> None:
    """Keep usage by hour and by day for so many days each; what is not given stays as it is."""
    windows = {
        "usage_requests": hours_keep_days,
        "usage_measures": hours_keep_days,
        "usage_request_days": days_keep_days,
        "usage_measure_days": days_keep_days,
    }
    for parent, window in windows.items():
        if window is not None:
            connection.execute("UPDATE partition_windows SET days = %s WHERE parent = %s", (window, parent))
