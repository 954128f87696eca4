"""Group commit: what arrives while a tenant's transaction is under way is committed together in the next one.

Alone, an event is written at once; under load the groups grow by themselves, and a transaction, its
notification and its wait for the disk are shared. A group is one tenant's, so that nobody waits for, fails
with or learns of anything of another tenant.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from kilo.ingest.rows import Row
from kilo.ingest.store import EventStore, Result

_MOST_EVENTS = 128
_MOST_BYTES = 1 << 20
_WRITERS = 2
"""Transactions of one tenant at once: while one waits for the disk, the next one's statement runs."""


@dataclass(slots=True)
class _Queue:
    waiting: deque[tuple[Row, asyncio.Future[Result]]] = field(
        default_factory=deque[tuple[Row, asyncio.Future[Result]]]
    )
    writers: int = 0


class GroupCommit:
    """Stores single events through ``store``, those of one tenant in groups."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def store(self, row: Row) -> Result:
        """Store one event; when this returns that it is new, it is committed."""
        queue = self._queues.setdefault(row.tenant, _Queue())
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.waiting.append((row, future))
        if queue.writers < _WRITERS:
            queue.writers += 1
            task = asyncio.create_task(self._write(row.tenant, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _write(self, tenant: str, queue: _Queue) -> None:
        try:
            while queue.waiting:
                group = _take(queue.waiting)
                try:
                    results = await self._store.store_each([row for row, _ in group])
                except Exception as error:
                    # Each request answers for itself, as if it had met the error alone.
                    for _, future in group:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in zip(group, results, strict=True):
                        if not future.done():
                            future.set_result(result)
        finally:
            queue.writers -= 1
            if not queue.writers and not queue.waiting:
                self._queues.pop(tenant, None)


def _take(
    waiting: deque[tuple[Row, asyncio.Future[Result]]],
) -> list[tuple[Row, asyncio.Future[Result]]]:
    """The next group; whoever has gone away meanwhile is left out."""
    group: list[tuple[Row, asyncio.Future[Result]]] = []
    size = 0
    while waiting and len(group) < _MOST_EVENTS:
        row, future = waiting[0]
        if group and size + row.size > _MOST_BYTES:
            break
        waiting.popleft()
        if not future.done():
            group.append((row, future))
            size += row.size
    return group
