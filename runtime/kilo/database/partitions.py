"""How long outbox and inbox keep their partitions: written down by an administrator, for roles to obey."""

from __future__ import annotations

from typing import Any

import psycopg


def declare_windows(connection: psycopg.Connection[Any], fingerprint_window_days: int) -> None:
    """Have the outbox know fingerprints for so many days, and the inbox twice as long.

    Twice, since replays of the stream must find what was consumed.

    Args:
        connection: an administrator's, in autocommit mode.
        fingerprint_window_days: the stage's.
    """
    windows = {"outbox": fingerprint_window_days, "inbox": 2 * fingerprint_window_days}
    for parent, days in windows.items():
        connection.execute("UPDATE partition_windows SET days = %s WHERE parent = %s", (days, parent))
