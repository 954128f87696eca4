"""Two real gateways, of which one does not follow: no kubelet, no answer, or a file that it refuses."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from kilo.database.lease import Lease
from kilo.database.session import connect
from kilo.tenancy import RampWeight
from kilo.traffic.envoy import render_files
from kilo.traffic.ramps.conductor import Conductor
from kilo.traffic.ramps.confirm import Replica, ask
from kilo.traffic.ramps.counted import Counted
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.ramp import Ramp
from kilo.traffic.ramps.store import RampStore
from kilo.traffic.settings import GatewayFeature, Upstream
from tests.runtime.traffic.ramps.test_live import GATE, Key, MakeGateway, Mounted
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, free_port


@dataclass
class Both(Mounted):
    """Two gateways of one stage; what the second is given is as ``delivered`` says."""

    second: Gateway | None = None
    delivered: Callable[[Mapping[str, str]], Mapping[str, str] | None] = dict

    async def deploy(self, changes: Mapping[Key, RampWeight], *, urgent: bool) -> None:
        await super().deploy(changes, urgent=urgent)
        self.deliver()

    def deliver(self) -> None:
        """What the second one's kubelet does."""
        assert self.second is not None
        if files := self.delivered(render_files(self.all(), self.second.settings)):
            self.second.mount(files)

    async def ask(self) -> Sequence[Replica]:
        assert self.second is not None
        return await ask([self.gateway.operations, self.second.operations])


@pytest.fixture
def both(make_gateway: MakeGateway, trial: UpstreamServer) -> Both:
    features = (GatewayFeature(id="search", next=Upstream(host=ADDRESS, port=trial.port)),)
    first, second = (make_gateway(next=None, features=features) for _ in range(2))
    mounted = Both(first, tenants=("acme",), second=second)
    for gateway in (first, second):
        gateway.start(mounted.all())
    return mounted


@contextmanager
def frozen(gateway: Gateway) -> Generator[None]:
    assert gateway.pid is not None
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(gateway.pid, signal.SIGCONT)


async def held_and_then(database_url: str, both: Both, healed: Callable[[], None]) -> tuple[Ramp, Ramp]:
    """Where a ramp stands while the second gateway does not follow, and when it does again."""
    connection = await connect(database_url, "ramps")
    lease = Lease("ramps/dev", "test")
    assert await lease.acquire(connection)
    store = RampStore(connection, "dev", lease)
    begun = await store.start(
        tenant="acme", feature="search", steps=(20,), gate=GATE, before=0, who="ann", program="0"
    )
    # Nothing answers there: whoever gets that far is held for it.
    figures = Counted(f"http://{ADDRESS}:{free_port()}")
    conductor = Conductor(store, both, both, both, figures, Freezes(), "test", "0")
    conductor.patience_seconds = 2
    for _ in range(3):
        await conductor.conduct()
    held = await store.get(begun.id)
    healed()
    conductor.patience_seconds = 60
    for _ in range(3):
        await conductor.conduct()
    there = await store.get(begun.id)
    await connection.close()
    return held, there


async def test_one_that_never_reads_the_file_holds_the_ramp_and_is_named(
    database_url: str, both: Both
) -> None:
    both.delivered = lambda _: None
    assert both.second is not None

    def healed() -> None:
        both.delivered = dict
        both.deliver()

    held, there = await held_and_then(database_url, both, healed)
    assert held.reason == f"not in force in 1 of 2 gateways: {both.second.operations}: not yet"
    assert (held.weight, held.pending) == (0, 20)
    assert (there.weight, there.pending) == (20, None)


async def test_one_that_hangs_holds_the_ramp_and_is_named(database_url: str, both: Both) -> None:
    assert both.second is not None
    with frozen(both.second) as _:
        stopped = both.second.pid
        assert stopped is not None
        held, there = await held_and_then(database_url, both, lambda: os.kill(stopped, signal.SIGCONT))
    assert held.reason == f"not in force in 1 of 2 gateways: {both.second.operations}: no answer"
    assert (held.weight, held.pending) == (0, 20)
    assert (there.weight, there.pending) == (20, None)


async def test_one_that_refuses_the_file_holds_the_ramp_and_goes_on_as_before(
    database_url: str, both: Both
) -> None:
    assert both.second is not None

    def broken(files: Mapping[str, str]) -> Mapping[str, str]:
        return {**files, "routes.json": files["routes.json"].replace("weighted_clusters", "no_such_field")}

    def healed() -> None:
        both.delivered = dict
        both.deliver()

    both.delivered = broken
    held, there = await held_and_then(database_url, both, healed)
    assert held.reason == f"not in force in 1 of 2 gateways: {both.second.operations}: refused"
    assert (held.weight, held.pending) == (0, 20)
    assert (there.weight, there.pending) == (20, None)
