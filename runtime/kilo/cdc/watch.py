"""Tells whether change capture moves, for the liveness probe of its connector.

A connector can run, call itself well and move nothing: its connection to the database hangs without an
end, or a thread of its own does. Nothing heals that but starting it again, which Kubernetes does when the
probe fails. Slow is not stalled: starting again in the middle of a long transaction would begin it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from psycopg import AsyncConnection

from kilo.health import Health

_log = logging.getLogger(__name__)

STALLED_SECONDS = 60.0
_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 4.0
_LOOK = """
SELECT pg_wal_lsn_diff(s.confirmed_flush_lsn, '0/0')::bigint,
       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
       coalesce(a.state = 'active' AND coalesce(a.wait_event_type, '') NOT IN ('Activity', 'Client'), false)
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s AND s.database = current_database() AND s.wal_status <> 'lost'
"""
_DELIVERED = """
SELECT EXISTS (SELECT FROM outbox WHERE publisher = 'cdc' AND dequeued_at > now() - %s * interval '1 s')
"""


@dataclass(frozen=True, slots=True)
class SlotLook:
    """The replication slot at a moment.

    Attributes:
        confirmed: WAL that the connector has confirmed, in bytes since the beginning.
        written: WAL that there is, likewise.
        decoding: whether the server is at work for the connector, rather than waiting for it.
    """

    confirmed: int
    written: int
    decoding: bool


class StallWatch:
    """How long WAL has waited without a sign of progress.

    Signs are: nothing waits, the confirmed position moved, or the server is decoding, which takes long for
    a transaction of many rows, of other tables too.
    """

    def __init__(self) -> None:
        self._confirmed: int | None = None
        self._since: float | None = None

    def observe(self, now: float, look: SlotLook | None) -> float:
        """The seconds without progress, after one more look; none when there was nothing to see.

        Args:
            now: the time, in seconds of a monotonic clock.
            look: what was seen.
        """
        moved = look is None or look.confirmed != self._confirmed
        if look is None or moved or look.decoding or look.confirmed >= look.written:
            self._since = None
        else:
            self._since = now if self._since is None else self._since
        self._confirmed = look.confirmed if look else None
        return 0.0 if self._since is None else now - self._since


class ConnectorWatch:
    """Looks at connector and slot every few seconds.

    Args:
        database_url: with the change capture role's credentials.
        slot: the replication slot's name.
        connector_url: of the connector's own liveness.
        health: told whether the database answers.
        stalled_seconds: how long WAL may wait without progress.
    """

    def __init__(
        self,
        database_url: str,
        slot: str,
        connector_url: str,
        health: Health,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        self._url = database_url
        self._slot = slot
        self._connector_url = connector_url
        self._health = health
        self._limit = stalled_seconds
        self._stall = StallWatch()
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the connector has to be started again, if it has."""
        return self._reason

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until ``stopping`` is set."""
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS / 2) as client:
            while not stopping.is_set():
                silent = await self._connector(client)
                # Asked in any case: whether the database answers is this process's own readiness.
                stalled = await self._stalled()
                reason = silent or stalled
                if reason and reason != self._reason:
                    _log.warning("not alive: %s", reason)
                self._reason = reason
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS)

    async def _connector(self, client: httpx.AsyncClient) -> str | None:
        try:
            answer = await client.get(self._connector_url)
        except httpx.HTTPError as error:
            reason = f"the connector does not answer: {error or type(error).__name__}"
        else:
            if answer.is_success:
                return None
            reason = f"the connector answers {answer.status_code} to its own liveness probe"
        # What is started again has the whole time anew.
        self._stall.observe(time.monotonic(), None)
        return reason

    async def _stalled(self) -> str | None:
        try:
            look, delivered = await asyncio.wait_for(
                read_slot(self._url, self._slot, self._limit / 2), _ANSWER_SECONDS
            )
        except (psycopg.Error, TimeoutError) as error:
            # Starting the connector again would not bring the database back.
            self._health.broken("database", str(error).partition("\n")[0] or type(error).__name__)
            look, delivered = None, False
        else:
            self._health.fine("database")
        seconds = self._stall.observe(time.monotonic(), None if delivered else look)
        if look is None or seconds < self._limit:
            return None
        waiting = look.written - look.confirmed
        return f"slot {self._slot}: {waiting:,} bytes of WAL wait, and none was confirmed for {seconds:.0f} s"


async def read_slot(database_url: str, slot: str, delivered_seconds: float) -> tuple[SlotLook | None, bool]:
    """The slot, none where there is none to read, and whether its rows reached the bus lately.

    Args:
        database_url: with the change capture role's credentials.
        slot: its name.
        delivered_seconds: what is lately.
    """
    async with await AsyncConnection.connect(
        database_url, autocommit=True, application_name="kilo-cdc-watch"
    ) as connection:
        # What the connector's session does is shown to the user who logged in, who is another than the role
        # since passwords were replaced.
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE NONE")
            row: Any = await (await connection.execute(_LOOK, (slot,))).fetchone()
        if row is None:
            return None, False
        # A transaction of many rows is confirmed at its end; until then its rows are seen in the stream.
        cursor = await connection.execute(_DELIVERED, (delivered_seconds,))
        delivered = await cursor.fetchone()
        return SlotLook(*row), bool(delivered and delivered[0])
