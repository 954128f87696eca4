"""A stage in memory around the real database: file, engine, gateways, and a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kilo.database.lease import Lease
from kilo.database.session import connect
from kilo.engine import NotDeployed
from kilo.errors import BadInput
from kilo.tenancy import RampWeight, Tenant
from kilo.traffic.ramps.conductor import Conductor
from kilo.traffic.ramps.confirm import Replica
from kilo.traffic.ramps.counted import Subject
from kilo.traffic.ramps.figures import Counts, Figures, Interval
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.gate import GateSettings
from kilo.traffic.ramps.ramp import Ramp
from kilo.traffic.ramps.store import RampStore
from tests.runtime.traffic.support import make_tenant

STEP = 10.0
GATE = GateSettings(hold_seconds=20, minimum_requests=300)
Key = tuple[str, str]


class Killed(BaseException):
    """What SIGKILL is to a process: nothing after it happens, and nobody handles it."""


def good(_: Subject, __: float) -> tuple[Counts, Counts]:
    return Counts(900), Counts(100)


@dataclass
class World:
    """Everything outside the process, which outlives it.

    Attributes:
        rates: what both versions answer in an interval, by subject and time.
        fuse: after how many effects the process is killed, None for never.
    """

    tenants: Sequence[str] = ("acme", "globex")
    file: dict[Key, RampWeight] = field(default_factory=dict[Key, RampWeight])
    deployed: dict[Key, RampWeight] = field(default_factory=dict[Key, RampWeight])
    gateways: dict[str, Replica | None] = field(default_factory=dict[str, "Replica | None"])
    rates: Callable[[Subject, float], tuple[Counts, Counts]] = good
    trouble: str | None = None
    refuses: str | None = None
    stuck: set[str] = field(default_factory=set[str])
    gone: set[str] = field(default_factory=set[str])
    now: float = 1_800_000_000.0
    fuse: int | None = None
    runs: list[dict[Key, RampWeight]] = field(default_factory=list[dict[Key, RampWeight]])

    @property
    def weights(self) -> Mapping[Key, RampWeight]:
        return dict(self.file)

    def burn(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed

    def tenant(self, name: str) -> Tenant:
        return make_tenant(name)

    def reread(self) -> None:
        pass

    def set_weights(self, weights: Mapping[Key, RampWeight]) -> None:
        self.burn()
        for tenant, _ in weights:
            if tenant in self.gone:
                raise BadInput(f"no tenant '{tenant}'")  # noqa: EM102
        self.file.update(weights)
        self.burn()

    async def deploy(self, changes: Mapping[Key, RampWeight], *, urgent: bool) -> None:
        self.burn()
        if self.refuses:
            raise NotDeployed(self.refuses)
        assert all(self.file[key] == weight for key, weight in changes.items())
        self.runs.append(dict(changes))
        self.deployed = dict(self.file)
        self.burn()

    async def ask(self) -> Sequence[Replica]:
        return [
            Replica(url, None if url in self.stuck and url.endswith("silent") else self._held(url))
            for url in ("http://one", "http://two", *sorted(self.stuck))
        ]

    def _held(self, url: str) -> dict[Key, RampWeight]:
        return {} if url in self.stuck else dict(self.deployed)

    async def figures(self, subject: Subject, since: float) -> Figures:
        self.burn()
        if self.trouble:
            return Figures(trouble=self.trouble)
        intervals: list[Interval] = []
        start = since
        while start + STEP <= self.now:
            intervals.append(Interval(start, start + STEP, *self.rates(subject, start)))
            start += STEP
        return Figures(intervals)

    def clock(self) -> float:
        # A pass waits for gateways by this clock, so it goes on by being looked at.
        self.now += 0.5
        return self.now


class FusedStore(RampStore):
    """The real store, before and after whose writes the process may be killed."""

    world: World

    async def update(self, ramp: Ramp, step: Any = None, **changes: Any) -> Ramp:
        self.world.burn()
        done = await super().update(ramp, step, **changes)
        self.world.burn()
        return done


@asynccontextmanager
async def conducting(url: str, world: World, freezes: Sequence[str] = ()) -> AsyncGenerator[Conductor]:
    """A process that conducts; what it held is free again when it has ended."""
    connection = await connect(url, "ramps")
    lease = Lease("ramps/dev", "test", seconds=60)
    try:
        assert await lease.acquire(connection)
        store = FusedStore(connection, "dev", lease)
        store.world = world
        yield Conductor(
            store, world, world, world, world, Freezes(freezes), "tester", "0.0", clock=world.clock
        )
    finally:
        await connection.execute("DELETE FROM leases")
        await connection.close()


async def start(
    url: str, tenant: str = "acme", feature: str = "search", steps: Sequence[RampWeight] = (5, 100)
) -> Ramp:
    connection = await connect(url, "starts")
    try:
        return await RampStore(connection, "dev").start(
            tenant=tenant, feature=feature, steps=steps, gate=GATE, before=0, who="ann", program="0.0"
        )
    finally:
        await connection.close()


async def conduct(conductor: Conductor, world: World, passes: int = 60) -> Ramp | None:
    """Pass after pass until no ramp is left; gives the last that was seen."""
    last: Ramp | None = None
    for _ in range(passes):
        ramps = await conductor.conduct()
        if not ramps:
            break
        last = ramps[0]
        world.now += STEP
    return last


async def acts(url: str, feature: str | None = None) -> list[tuple[str, str, str]]:
    """What was recorded, oldest first: act, from, to."""
    connection = await connect(url, "reads")
    try:
        history = await RampStore(connection, "dev").history(None, feature, 100)
    finally:
        await connection.close()
    return [(each["act"], each["weight_from"], each["weight_to"]) for each in reversed(history)]
