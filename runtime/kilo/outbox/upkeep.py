"""Keeps the outbox well while workers run: partitions ahead, compaction behind, and the gauges.

Safe in any number of copies: every step is bounded, takes short locks or none, and finds its work by
looking. Left out: VACUUM, which autovacuum does by the partitions' own settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from prometheus_client import REGISTRY
from psycopg import AsyncConnection

from kilo.contract import OutboxOutputs
from kilo.database.session import connect
from kilo.observe import metrics
from kilo.outbox.dispatched import SHOWN_CREATED_AT

_log = logging.getLogger(__name__)
_oldest = metrics.OUTBOX_OLDEST_AGE.create(REGISTRY)
_waiting = metrics.OUTBOX_ROWS_WAITING.create(REGISTRY)
_watermark_age = metrics.OUTBOX_WATERMARK_AGE.create(REGISTRY)
_watermark_pid = metrics.OUTBOX_WATERMARK_BLOCKING_PID.create(REGISTRY)
_dead = metrics.OUTBOX_DEAD_TUPLES.create(REGISTRY)
_blocked = metrics.OUTBOX_BLOCKED_KEYS.create(REGISTRY)
_stuck = metrics.OUTBOX_STUCK_AGGREGATES.create(REGISTRY)
_slot_lag = metrics.REPLICATION_SLOT_LAG.create(REGISTRY)
_slot_active = metrics.REPLICATION_SLOT_ACTIVE.create(REGISTRY)
_slot_limit = metrics.REPLICATION_SLOT_LIMIT.create(REGISTRY)

_GAUGES_SECONDS = 5.0
_PARTITIONS_SECONDS = 60.0
_STEPS = 200
"""At most so many of a kind each time, of 5,000 rows of events or 20,000 fingerprints; the rest goes the next
time. Others have their turn between two steps."""
_COUNTED = 1_000_000
"""Rows up to which waiting ones are counted; more is "a million or more"."""

_STATE = f"""
SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE dequeued_at IS NULL LIMIT %(counted)s) AS waiting),
       coalesce((SELECT extract(epoch FROM clock_timestamp() - {SHOWN_CREATED_AT}) FROM outbox
                 WHERE dequeued_at IS NULL ORDER BY id LIMIT 1), 0)::float8,
       (SELECT count(*) FROM outbox_blocked),
       (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
        WHERE relname ~ '^outbox_(\\d{{8}}|default)$'),
       coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) FROM pg_stat_activity
                 WHERE backend_xid IS NOT NULL OR backend_xmin IS NOT NULL), 0)::float8,
       coalesce((SELECT pid FROM pg_stat_activity WHERE backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
                 ORDER BY xact_start LIMIT 1), 0),
       (SELECT active FROM pg_replication_slots WHERE slot_name = %(slot)s),
       (SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint
        FROM pg_replication_slots WHERE slot_name = %(slot)s),
       (SELECT greatest(setting::bigint, 0) * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
"""  # noqa: S608  an expression of our own


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How the outbox is at a moment.

    Attributes:
        rows_waiting: rows that are not dispatched, counted up to a million.
        oldest_age_seconds: how long the first of them waits.
        blocked_keys: ordering keys whose next event the bus does not take.
        dead_tuples: of all partitions, as PostgreSQL's statistics have it.
        watermark_age_seconds: age of the oldest open transaction, which holds vacuum and change capture back.
        watermark_pid: the backend of that transaction, 0 when there is none.
        slot_active: whether a connector streams; none when there is no slot.
        slot_lag_bytes: WAL that the slot holds back.
        slot_limit_bytes: WAL beyond which the slot is lost, 0 for no limit.
    """

    rows_waiting: int
    oldest_age_seconds: float
    blocked_keys: int
    dead_tuples: int
    watermark_age_seconds: float
    watermark_pid: int
    slot_active: bool | None
    slot_lag_bytes: int | None
    slot_limit_bytes: int


async def outbox_state(connection: AsyncConnection[Any], outbox: OutboxOutputs) -> OutboxState:
    """Look at the outbox; the role needs ``pg_monitor`` to see other sessions."""
    values = {"counted": _COUNTED, "slot": outbox.replication_slot}
    row = await (await connection.execute(_STATE, values)).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return OutboxState(*row)


async def compact(connection: AsyncConnection[Any]) -> str | None:
    """Drop the oldest partition that is drained and older than the fingerprint window, one a call.

    The window is what ``kilo db migrate`` wrote down. Rows are needed for as long as their fingerprints must
    be known, and as long as the bus may still lose them (its sync interval, which is far shorter). Change
    capture reads the WAL, not the table; its rows count as drained only when the reconciler has seen them in
    the stream.

    Returns:
        The partition's name, none when there was nothing to drop.
    """
    row = await (await connection.execute("SELECT outbox_drop_expired()")).fetchone()
    return row[0] if row else None


async def drop_events(connection: AsyncConnection[Any]) -> int:
    """Delete rows of ``events`` that are older than the stage keeps them, in bounded steps; how many."""
    return await _by_steps(connection, "SELECT events_drop_expired()")


async def drop_fingerprints(connection: AsyncConnection[Any]) -> int:
    """Delete fingerprints beyond their window, but none younger than what waits; how many."""
    return await _by_steps(connection, "SELECT outbox_drop_fingerprints()")


async def _by_steps(connection: AsyncConnection[Any], statement: LiteralString) -> int:
    gone = 0
    for _ in range(_STEPS):
        row = await (await connection.execute(statement)).fetchone()
        if not row or not row[0]:
            break
        gone += row[0]
    return gone


class Upkeep:
    """Runs beside the worker."""

    def __init__(self, database_url: str, outbox: OutboxOutputs) -> None:
        self._url = database_url
        self._outbox = outbox
        self._partitions_at = -_PARTITIONS_SECONDS

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set; a database that is away is waited for."""
        while not stopping.is_set():
            try:
                async with await connect(self._url, "kilo-outbox-upkeep") as connection:
                    await self.run_once(connection)
            except psycopg.Error as error:
                _log.warning("upkeep: %s", str(error).splitlines()[0])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _GAUGES_SECONDS)

    async def run_once(self, connection: AsyncConnection[Any]) -> None:
        """Set the gauges, and look after the partitions when that is due."""
        if time.monotonic() - self._partitions_at >= _PARTITIONS_SECONDS:
            self._partitions_at = time.monotonic()
            await connection.execute("SELECT outbox_make_partitions()")
            if name := await compact(connection):
                _log.info("dropped %s: drained and older than the fingerprint window", name)
            if gone := await drop_fingerprints(connection):
                _log.info("deleted %d fingerprints that were older than their window", gone)
            if gone := await drop_events(connection):
                _log.info("deleted %d rows of events that were older than their window", gone)
        state = await outbox_state(connection, self._outbox)
        _waiting.set(state.rows_waiting)
        _oldest.set(state.oldest_age_seconds)
        _blocked.set(state.blocked_keys)
        _stuck.set(state.blocked_keys)
        _dead.set(state.dead_tuples)
        _watermark_age.set(state.watermark_age_seconds)
        _watermark_pid.set(state.watermark_pid)
        _slot_limit.set(state.slot_limit_bytes)
        if state.slot_active is not None:
            _slot_active.labels(self._outbox.replication_slot).set(state.slot_active)
            _slot_lag.labels(self._outbox.replication_slot).set(state.slot_lag_bytes or 0)
