"""Leading a stage's promotions: one process at a time, by a lease in the stage's database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from kilo.database.lease import RENEW_SECONDS, Lease, LeaseLost
from kilo.database.migrator import use_schema
from kilo.database.session import connect
from kilo.errors import CheckFailed, Unreachable
from kilo.promotion.record import Journal


@dataclass
class _Renewal:
    """Takes the lease in a thread of its own, so that nothing which takes its time keeps it from renewing."""

    url: str
    schema: str
    lease: Lease
    taken: bool = False
    trouble: str = ""
    _known: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._known.wait()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        try:
            connection = await connect(self.url, f"kilo promote {self.lease.holder}")
            await connection.execute(
                "SELECT set_config('search_path', quote_ident(%s) || ', pg_temp', false)", (self.schema,)
            )
            self.taken = await self.lease.acquire(connection)
        except psycopg.Error as error:
            self.trouble = type(error).__name__
            return
        finally:
            self._known.set()
        async with connection:
            # Whoever lost it finds that out with the next step, which is fenced.
            with suppress(LeaseLost, psycopg.Error):
                while self.taken and not await asyncio.to_thread(self._over.wait, RENEW_SECONDS):
                    await self.lease.renew(connection)
                await self.lease.release(connection)


@contextmanager
def leading(url: str, schema: str, stage: str, who: str, program: str) -> Generator[Journal]:
    """The journal of the stage's promotions, for whoever leads them.

    Raises:
        CheckFailed: another process leads, or took over meanwhile.
        Unreachable: the database does not answer.
    """
    renewal = _Renewal(url, schema, Lease(f"promotion/{stage}", who))
    renewal.start()
    try:
        if renewal.trouble:
            msg = f"DATABASE_URL: no lease is to be had ({renewal.trouble}); run `kilo db migrate`"
            raise Unreachable(msg)
        with _tables(url, schema) as connection:
            if not renewal.taken:
                row = connection.execute(
                    "SELECT holder FROM leases WHERE name = %s", (f"promotion/{stage}",)
                ).fetchone()
                msg = (
                    f"{row[0] if row else 'another process'} leads a promotion to {stage} at this moment; "
                    "let it end, and look with `kilo promote history`"
                )
                raise CheckFailed(msg)
            yield Journal(connection, stage, program, renewal.lease)
    except LeaseLost:
        msg = f"another process has taken over what is promoted to {stage}; this one has stopped"
        raise CheckFailed(msg) from None
    finally:
        renewal.stop()


@contextmanager
def reading(url: str, schema: str, stage: str) -> Generator[Journal]:
    """The journal of the stage's promotions, for whoever looks."""
    with _tables(url, schema) as connection:
        yield Journal(connection, stage, "")


@contextmanager
def _tables(url: str, schema: str) -> Generator[psycopg.Connection[tuple[object, ...]]]:
    try:
        connection = psycopg.connect(url, connect_timeout=5, autocommit=True)
    except psycopg.OperationalError as error:
        msg = f"DATABASE_URL: the database can't be reached ({type(error).__name__})"
        raise Unreachable(msg) from None
    with connection:
        use_schema(connection, schema)
        yield connection
