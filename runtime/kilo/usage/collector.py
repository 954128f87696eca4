"""Beside each gateway: reads its files and adds up what stands there, until told to stop and all is read.

The gateway waits for nothing of this: it writes to a file, which holds what comes while the database is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import psycopg
from prometheus_client import REGISTRY

from kilo.database.session import connect
from kilo.health import Health
from kilo.observe import metrics
from kilo.usage.files import LogFile, LogFiles
from kilo.usage.store import Moved, UsageStore
from kilo.usage.sums import add_up

_log = logging.getLogger(__name__)
_entries = metrics.USAGE_ENTRIES.create(REGISTRY)
_unreadable = metrics.USAGE_UNREADABLE.create(REGISTRY)
_waiting = metrics.USAGE_WAITING_BYTES.create(REGISTRY)
_dropped = metrics.USAGE_DROPPED_BYTES.create(REGISTRY)

PAUSE_SECONDS = 2.0
"""Between two looks at files in which little is new."""
_AWAY_SECONDS = 1.0
_QUIET_SECONDS = 2.5
"""When a gateway has stopped too, all that it held back is written within this time."""
_SHOW_SECONDS = 3_600.0


class Collector:
    """Reads one gateway's files.

    Args:
        database_url: with the credentials of ``kilo_usage``.
        files: the gateway's.
        source: the gateway's name.
        pause_seconds: between two looks.
    """

    def __init__(
        self,
        database_url: str,
        files: LogFiles,
        source: str,
        health: Health,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._url = database_url
        self._files = files
        self._source = source
        self._health = health
        self._pause = pause_seconds
        self._shown_at = -_SHOW_SECONDS
        self._lost: list[LogFile] = []
        """Deleted for want of room, and not yet told the database."""
        self._counted: dict[str, int] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping`` is set and all is read; until then wait for a database that is away."""
        while True:
            try:
                async with await connect(self._url, "kilo-usage-collect") as connection:
                    self._health.fine("database")
                    await self._follow(UsageStore(connection, self._source), stopping)
                    return
            except psycopg.Error as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._health.broken("database", said)
                _log.warning("usage: %s", said)
                self._files.rotate()
                self._make_room()
                if stopping.is_set():
                    # What is not read stays in its file, for the next collector of this pod.
                    return
                await _wait(stopping, _AWAY_SECONDS)
            except Exception:
                # A collector that ends makes its pod unready, and that is a gateway's.
                self._health.broken("database", "a defect; the log has it")
                _log.exception("usage")
                if stopping.is_set():
                    return
                await _wait(stopping, _AWAY_SECONDS)

    async def _follow(self, store: UsageStore, stopping: asyncio.Event) -> None:
        self._counted.clear()  # What this process believed may not be what was committed.
        quiet_since = time.monotonic()
        while True:
            self._files.rotate()
            while self._lost:
                await store.drop(self._lost[0].identity, self._lost[0].size)
                self._lost.pop(0)
            more = await self._look(store)
            if more:
                quiet_since = time.monotonic()
            elif stopping.is_set() and time.monotonic() - quiet_since >= _QUIET_SECONDS:
                return
            # A set event makes no pause: the rest is then looked for without haste all the same.
            await (asyncio.sleep(0.1) if stopping.is_set() else _wait(stopping, 0 if more else self._pause))

    async def _look(self, store: UsageStore) -> bool:
        """Take a chunk of each file; whether there may be more at once."""
        files = self._files.list()
        if time.monotonic() - self._shown_at >= _SHOW_SECONDS:
            await store.show([each.identity for each in files])
            self._shown_at = time.monotonic()
        more, waiting = False, 0
        for each in files:
            begins = self._counted.get(each.identity)
            if begins is None:
                begins = await store.read_to(each.identity)
            ends = await self._take(store, each, begins)
            self._counted[each.identity] = ends
            waiting += max(each.size - ends, 0)
            if ends >= each.size and each.finished:
                self._files.delete(each)
                self._counted.pop(each.identity)
            more |= ends > begins and ends < each.size
        _waiting.set(waiting)
        return more

    async def _take(self, store: UsageStore, file: LogFile, begins: int) -> int:
        chunk = self._files.read(file, begins)
        if chunk is None:
            return begins
        sums = add_up(chunk.text)
        try:
            await store.add(chunk, sums)
        except Moved:
            _log.info("usage: %s was read elsewhere meanwhile", file.path.name)
            return await store.read_to(file.identity)
        _entries.inc(sums.entries)
        if sums.unreadable:
            _unreadable.inc(sums.unreadable)
            _log.warning("usage: %d lines of %s can't be read", sums.unreadable, file.path.name)
        return chunk.ends

    def _make_room(self) -> None:
        for each in self._files.make_room():
            _log.error("usage: %s went unread, for want of room", each.path.name)
            _dropped.inc(each.size)
            self._lost.append(each)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
