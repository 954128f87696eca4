"""Counts in the database what became of acknowledged events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

from runtime.tour.sender import Answer

_POLL_SECONDS = 0.2

# The row of `events` is written once, in the transaction that the event was acknowledged for, so its
# xmin tells when that committed, where the server keeps commit timestamps.
_ROWS = """
SELECT e.fingerprint,
       o.fingerprint IS NOT NULL,
       i.publisher,
       coalesce(i.duplicates, 0),
       extract(epoch FROM i.received_at - {committed}),
       e.payload::text,
       coalesce(o.payload::text, '')
FROM events e
LEFT JOIN outbox o ON o.fingerprint = e.fingerprint
LEFT JOIN inbox i ON i.fingerprint = e.fingerprint
WHERE e.fingerprint = ANY (%s)
"""


@dataclass
class TenantCount:
    """One line of the tour's table; latencies in seconds."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    in_outbox: int = 0
    by_worker: int = 0
    by_cdc: int = 0
    duplicates: int = 0
    altered: int = 0
    latencies: list[float] = field(default_factory=list[float])
    encrypted: dict[str, int] = field(default_factory=dict[str, int])
    plain: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def delivered(self) -> int:
        """Events that a consumer has."""
        return self.by_worker + self.by_cdc

    @property
    def lost(self) -> int:
        """Events that were acknowledged and that no consumer has."""
        return self.acknowledged - self.delivered


def wait_delivered(
    url: str, answers: Sequence[Answer], *, timeout_seconds: float, progress: Callable[[int], None]
) -> None:
    """Wait until a consumer has every acknowledged event, or the time is up.

    The database may go away meanwhile; ``progress`` is called with how many have arrived.
    """
    fingerprints = [answer.fingerprint for answer in answers if answer.fingerprint]
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
                query = "SELECT count(DISTINCT fingerprint) FROM inbox WHERE fingerprint = ANY (%s)"
                row = connection.execute(query, (fingerprints,)).fetchone()
        except psycopg.OperationalError:
            row = None
        arrived = int(row[0]) if row else 0
        progress(arrived)
        if arrived == len(fingerprints):
            return
        time.sleep(_POLL_SECONDS)


def count(url: str, answers: Sequence[Answer], sensitive: Sequence[str]) -> dict[str, TenantCount]:
    """What became of each tenant's events.

    Args:
        url: of the database, with a role that may read its tables.
        answers: of all events that were sent.
        sensitive: names of payload fields whose storage is looked at.
    """
    counts: dict[str, TenantCount] = {}
    by_fingerprint: dict[str, Answer] = {}
    for answer in answers:
        line = counts.setdefault(answer.event.tenant, TenantCount())
        line.sent += 1
        line.refused += answer.refusal is not None
        if answer.fingerprint and answer.fingerprint not in by_fingerprint:
            by_fingerprint[answer.fingerprint] = answer
            line.acknowledged += 1
    with psycopg.connect(url, connect_timeout=10) as connection:
        kept = connection.execute("SELECT current_setting('track_commit_timestamp')").fetchone()
        committed = "pg_xact_commit_timestamp(e.xmin)" if kept and kept[0] == "on" else "e.received_at"
        query = _ROWS.format(committed=committed)
        for row in connection.execute(query, (list(by_fingerprint),)):  # pyright: ignore[reportArgumentType]
            answer = by_fingerprint[row[0]]
            _add(counts[answer.event.tenant], row, answer.event.content()["payload"], sensitive)
    return counts


def _add(line: TenantCount, row: tuple[Any, ...], payload: Any, sensitive: Sequence[str]) -> None:
    _, in_outbox, publisher, duplicates, latency, stored, announced = row
    line.in_outbox += bool(in_outbox)
    line.by_worker += publisher == "worker"
    line.by_cdc += publisher == "cdc"
    line.duplicates += int(duplicates)
    if latency is not None:
        line.latencies.append(float(latency))
    rest_sent, rest_stored = _values(json.dumps(payload)), _values(stored)
    for name in sensitive:
        if not isinstance(payload, dict) or name not in payload:
            continue
        text = json.dumps(payload[name], ensure_ascii=False)
        hidden = text not in stored and text not in announced
        target = line.encrypted if hidden else line.plain
        target[name] = target.get(name, 0) + 1
        if hidden:
            rest_sent.pop(name, None)
            rest_stored.pop(name, None)
    line.altered += rest_sent != rest_stored


def _values(text: str) -> dict[str, Any]:
    """JSON with every number exact, so that equal means equal."""
    value: Any = json.loads(text, parse_float=Decimal)
    return value if isinstance(value, dict) else {"": value}
