"""Conducting a stage's ramps from a process: the lease, the pace, and what is shown of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from infra.ramps.stage_file import RampFile
from kilo.database.lease import RENEW_SECONDS, Lease, LeaseLost
from kilo.database.migrator import use_schema
from kilo.database.session import connect
from kilo.errors import KiloError, Unreachable
from kilo.traffic.ramps.audit import export
from kilo.traffic.ramps.conductor import Conductor, Engine
from kilo.traffic.ramps.confirm import Replica, ask
from kilo.traffic.ramps.counted import Counted
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.ramp import Ramp, State
from kilo.traffic.ramps.store import RampStore

PASS_SECONDS = 2.0
"""How often the figures are looked at."""
_PAUSE_SECONDS = 0.25
"""How soon a request for a pause or a revert is noticed."""


@dataclass
class Replicas:
    """The gateways by the addresses that were given, or else those that Prometheus scrapes."""

    prometheus: Counted
    given: Sequence[str] = ()
    _known: list[str] = field(default_factory=list[str])

    async def ask(self) -> list[Replica]:
        """Every gateway's own account; those known before when Prometheus is away."""
        if self.given:
            return await ask(self.given)
        try:
            self._known = await self.prometheus.replicas()
        except Unreachable as error:
            if not self._known:
                msg = f"{error}; name them with --gateway"
                raise Unreachable(msg) from error
        return await ask(self._known)


@dataclass(frozen=True)
class Setting:
    """What a process needs to lead ramps, or to look at them.

    Attributes:
        url: the database's.
        who: the person or the process.
        program: the program's version.
    """

    url: str
    file: RampFile
    engine: Engine
    prometheus: Counted
    gateways: Replicas
    who: str
    program: str

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.file.settings.stage

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection[Any]]:
        """A session on the stage's tables.

        Raises:
            Unreachable: the database does not answer.
        """
        try:
            connection = await connect(self.url, f"kilo traffic {self.who}")
        except psycopg.OperationalError as error:
            msg = f"DATABASE_URL: the database can't be reached: {str(error).strip().splitlines()[0]}"
            raise Unreachable(msg) from error
        try:
            schema = sql.Identifier(self.file.settings.database.schema_name)
            await connection.execute(sql.SQL("SET search_path = {}, pg_temp").format(schema))
            yield connection
        finally:
            await connection.close()


Shown = Callable[[Sequence[Ramp]], None]


async def lead(setting: Setting, mine: set[int] | None, shown: Shown, *, once: bool = False) -> list[Ramp]:
    """Conduct the stage's ramps, or look on while another process does, until those asked about have ended.

    Args:
        setting: the stage.
        mine: ids of the ramps that are waited for; None for all that there are.
        shown: called with them after each look.
        once: make one pass and end.

    Returns:
        Where the ramps that were waited for stand.

    Raises:
        Unreachable: the database does not answer.
    """
    async with setting.connection() as connection, setting.connection() as renewing:
        lease = Lease(f"ramps/{setting.stage}", setting.who)
        store = RampStore(connection, setting.stage, lease)
        waited = mine if mine is not None else {ramp.id for ramp in await store.active()}
        while True:
            if await lease.acquire(connection):
                with suppress(LeaseLost):
                    return await _conduct(setting, store, renewing, waited, shown, once=once)
                continue
            # Another process leads; when it ends or dies, its lease does, and this one goes on.
            found = [await store.get(number) for number in sorted(waited)]
            shown(found)
            if once or all(ramp.state.ended for ramp in found):
                return found
            await asyncio.sleep(_PAUSE_SECONDS)


async def _conduct(
    setting: Setting,
    store: RampStore,
    renewing: AsyncConnection[Any],
    waited: set[int],
    shown: Shown,
    *,
    once: bool,
) -> list[Ramp]:
    conductor = Conductor(
        store,
        setting.file,
        setting.engine,
        setting.gateways,
        setting.prometheus,
        Freezes(setting.file.settings.freezes),
        setting.who,
        setting.program,
    )
    if store.lease is None:
        raise LeaseLost
    lease = store.lease
    auditing = asyncio.create_task(asyncio.to_thread(_audit, setting))
    renewal = asyncio.create_task(_renew(lease, renewing))
    try:
        while True:
            await conductor.conduct()
            found = [await store.get(number) for number in sorted(waited)]
            shown(found)
            if once or all(ramp.state.ended for ramp in found):
                return found
            if auditing.done():
                auditing = asyncio.create_task(asyncio.to_thread(_audit, setting))
            await _until_due(store, renewal)
    finally:
        await auditing
        await asyncio.to_thread(_audit, setting)
        renewal.cancel()
        with suppress(asyncio.CancelledError, psycopg.Error, LeaseLost):
            await renewal
        with suppress(psycopg.Error):
            await lease.release(renewing)


def _audit(setting: Setting) -> None:
    """Copy steps into the audit log; what can't be now is by whoever leads next."""
    with suppress(psycopg.Error, KiloError), psycopg.connect(setting.url, connect_timeout=5) as connection:
        use_schema(connection, setting.file.settings.database.schema_name)
        export(connection, setting.stage)


async def _until_due(store: RampStore, renewal: asyncio.Task[None]) -> None:
    """Wait for the next pass: its time, or somebody's request."""
    before = {ramp.id: ramp.state for ramp in await store.active()}
    deadline = time.monotonic() + PASS_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE_SECONDS)
        if renewal.done():
            raise LeaseLost
        now = {ramp.id: ramp.state for ramp in await store.active()}
        if now != before or State.REVERTING in now.values():
            return


async def _renew(lease: Lease, connection: AsyncConnection[Any]) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await lease.renew(connection)
