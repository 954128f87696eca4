"""Counts in the database what became of acknowledged events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from kilo.fle.formats import is_encrypted
from kilo.outbox import strict_json
from kilo.sensitive import without
from kilo.tour.sender import Answer

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
       o.payload::text
FROM events e
LEFT JOIN outbox o ON o.fingerprint = e.fingerprint AND o.tenant = e.tenant
LEFT JOIN inbox i ON i.fingerprint = e.fingerprint AND i.tenant = e.tenant
WHERE e.fingerprint = ANY (%s)
"""


@dataclass
class TenantCount:
    """One line of the tour's table.

    Attributes:
        altered: events of which another payload is stored than was sent.
        latencies: seconds from an event's commit until a consumer had it.
        encrypted: how many values are stored encrypted, by field.
        plain: how many lie in the clear although the stage encrypts their field.
    """

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
    """Wait until a consumer has every acknowledged event, or none has arrived for ``timeout_seconds``.

    The database may go away meanwhile; ``progress`` is called with how many have arrived.
    """
    # Lines of a file may share a key, and are one event then.
    fingerprints = list({answer.fingerprint for answer in answers if answer.fingerprint})
    deadline, most = time.monotonic() + timeout_seconds, 0
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
                query = "SELECT count(DISTINCT fingerprint) FROM inbox WHERE fingerprint = ANY (%s)"
                row = connection.execute(query, (fingerprints,)).fetchone()
        except psycopg.OperationalError:
            row = None
        arrived = int(row[0]) if row else 0
        progress(arrived)
        if arrived > most:
            deadline, most = time.monotonic() + timeout_seconds, arrived
        if arrived == len(fingerprints):
            return
        time.sleep(_POLL_SECONDS)


def count(
    url: str, answers: Sequence[Answer], encrypted_fields: Mapping[str, Sequence[str]]
) -> dict[str, TenantCount]:
    """What became of each tenant's events.

    Args:
        url: of the database, with a role that may read its tables.
        answers: of all events that were sent.
        encrypted_fields: the fields that the stage encrypts, by tenant.
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
            event = by_fingerprint[row[0]].event
            fields = frozenset(encrypted_fields.get(event.tenant, ()))
            _add(counts[event.tenant], row, event.content()["payload"], fields)
    return counts


def _add(line: TenantCount, row: tuple[Any, ...], payload: Any, fields: frozenset[str]) -> None:
    _, in_outbox, publisher, duplicates, latency, stored, announced = row
    line.in_outbox += bool(in_outbox)
    line.by_worker += publisher == "worker"
    line.by_cdc += publisher == "cdc"
    line.duplicates += int(duplicates)
    if latency is not None:
        line.latencies.append(float(latency))
    # What a publisher took is out of the outbox sooner or later; the business row stays.
    copies = [strict_json.parse(text) for text in (stored, announced) if text is not None]
    line.altered += any(not same(payload, copy, fields) for copy in copies)
    sealed = [list(sensitive_values(copy, fields)) for copy in copies]
    for index, (name, _) in enumerate(sealed[0]):
        everywhere = all(is_encrypted(values[index][1]) for values in sealed if index < len(values))
        target = line.encrypted if everywhere else line.plain
        target[name] = target.get(name, 0) + 1


def same(sent: Any, stored: Any, fields: frozenset[str]) -> bool:
    """Whether two payloads are one JSON value, numbers exact, apart from the text of ``fields``."""
    return strict_json.canonical(without(fields, sent)) == strict_json.canonical(without(fields, stored))


def sensitive_values(payload: Any, fields: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Every text that stands in one of ``fields``, at any depth, with the field's name."""
    if isinstance(payload, dict):
        for name, value in sorted(payload.items()):
            if name in fields and isinstance(value, str):
                yield name, value
            else:
                yield from sensitive_values(value, fields)
    elif isinstance(payload, list):
        for value in payload:
            yield from sensitive_values(value, fields)
