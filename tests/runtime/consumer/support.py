"""A consumer under test, and events on its bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.bus import Message, encode_headers, event_headers
from kilo.consumer import Connections, Consumer, Event, Policy
from kilo.fle.formats import RowId
from kilo.health import Health
from tests.patience import eventually
from tests.runtime.conftest import BusServer

QUICK = Policy(attempts=3, first_pause_seconds=0.05, longest_pause_seconds=0.1)
HANGS = replace(QUICK, timeout_seconds=0.5)
"""For handlers that never return. Any other may take longer than that on a busy machine, and fail."""


class Plain:
    """Nothing is encrypted."""

    async def protected_fields(self, tenant: str) -> frozenset[str]:
        return frozenset()

    async def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str) -> str:
        raise NotImplementedError

    async def revealed_fields(self, tenant: str) -> frozenset[str]:
        return frozenset()

    async def reveal_value(self, tenant: str, field: str, row_id: RowId, value: object) -> object:
        raise NotImplementedError


def a_message(
    n: int,
    aggregate_id: str = "1",
    payload: bytes | None = None,
    created_at: datetime | None = None,
    **other: str,
) -> Message:
    headers = event_headers(
        message_id=other.pop("message_id", f"acme/{n}"),
        fingerprint=other.pop("fingerprint", f"acme/{n}"),
        kind=other.pop("kind", "order.paid"),
        tenant=other.pop("tenant", "acme"),
        aggregate_id=aggregate_id,
        created_at=created_at or datetime(2026, 3, 1, 12, 0, n % 60, n, tzinfo=UTC),
        publisher="worker",
    )
    body = payload if payload is not None else b'{"n": %d}' % n
    return Message("events.order", aggregate_id, encode_headers({**headers, **other}), body)


@dataclass
class Running:
    """A consumer whose handler writes what it was given into a table of its own."""

    url: str
    bus: BusServer
    consumer: Consumer
    seen: list[Event] = field(default_factory=list[Event])
    fail: dict[int, Exception] = field(default_factory=dict[int, Exception])

    def handle_with_effects(self, kind: str = "*", policy: Policy = QUICK) -> None:
        @self.consumer.on(kind, policy)
        async def handle(event: Event, connection: AsyncConnection[Any]) -> None:  # pyright: ignore[reportUnusedFunction]
            number = int(event.fingerprint.partition("/")[2])
            await connection.execute(
                "INSERT INTO effects (n, aggregate_id) VALUES (%s, %s)", (number, event.aggregate_id)
            )
            if number in self.fail:
                raise self.fail[number]
            self.seen.append(event)

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def effects(self, aggregate_id: str | None = None) -> list[int]:
        rows = self.sql("SELECT n, aggregate_id FROM effects ORDER BY serial")
        return [n for n, each in rows if aggregate_id in {None, each}]

    async def publish(self, messages: Sequence[Message]) -> None:
        bus = await self.bus.connect()
        receipts = await bus.publish(messages)
        assert all(receipt.position for receipt in receipts)
        await bus.close()

    async def until(self, query: str, expected: object) -> None:
        await eventually(lambda: self.sql(query) == expected, f"{query} never gave {expected}")

    @property
    def connections(self) -> Connections:
        return Connections(self.url, self.bus.connect, self.bus.outputs.bus.stream, Plain())

    @asynccontextmanager
    async def running(self, copies: int = 1, health: Health | None = None) -> AsyncGenerator[None]:
        stopping = asyncio.Event()
        tasks = [
            asyncio.create_task(self.consumer.run(self.connections, stopping, health)) for _ in range(copies)
        ]
        yield
        stopping.set()
        await asyncio.gather(*tasks)


def make(url: str, bus: BusServer, batch: int = 500) -> Running:
    made = Running(url, bus, Consumer("test", QUICK, batch=batch))
    made.sql("CREATE TABLE effects (serial bigserial, n int, aggregate_id text)")
    return made
