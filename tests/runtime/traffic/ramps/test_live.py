"""Ramps on a real gateway whose requests a real Prometheus counts, in front of real upstreams."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from components.processes.usage import COLLECTOR
from kilo.database.lease import Lease
from kilo.database.session import connect
from kilo.tenancy import RampWeight, Tenant
from kilo.traffic.ramps.conductor import Conductor
from kilo.traffic.ramps.confirm import Answer, Replica, ask
from kilo.traffic.ramps.counted import Counted, Subject
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.gate import GateSettings
from kilo.traffic.ramps.ramp import Ramp, State
from kilo.traffic.ramps.store import RampStore
from kilo.traffic.settings import GatewayFeature, Upstream
from sandbox import toolchain
from tests.patience import PATIENCE_SECONDS, until
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, free_port, make_tenant

MakeGateway = Callable[..., Gateway]
Key = tuple[str, str]
GATE = GateSettings(hold_seconds=2, minimum_requests=20)


@pytest.fixture
def gateway(make_gateway: MakeGateway, trial: UpstreamServer) -> Gateway:
    return make_gateway(
        next=None, features=(GatewayFeature(id="search", next=Upstream(host=ADDRESS, port=trial.port)),)
    )


class Scraper:
    """A Prometheus that scrapes one gateway four times a second."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.url = f"http://{ADDRESS}:{free_port()}"
        target = gateway.operations.removeprefix("http://")
        self._config = folder / "prometheus.yml"
        self._config.write_text(
            "global: {scrape_interval: 250ms}\nscrape_configs:\n  - job_name: gateway\n    static_configs:\n"
            f"      - {{targets: ['{target}'], labels: {{namespace: kilo, container: gateway}}}}\n"
            # What stands beside a gateway in its pod is of the same job.
            f"      - {{targets: ['{ADDRESS}:1'], labels: {{namespace: kilo, container: {COLLECTOR}}}}}\n"
        )
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            str(toolchain.path("prometheus")),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._data}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._is_ready, "Prometheus ready")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def scraper(tmp_path: Path, gateway: Gateway) -> Iterator[Scraper]:
    scraper = Scraper(tmp_path, gateway)
    yield scraper
    scraper.stop()


@dataclass
class Mounted:
    """The stage's file and engine: what is set is rendered and mounted as a kubelet does."""

    gateway: Gateway
    tenants: Sequence[str] = ("acme", "globex")
    weights: dict[Key, RampWeight] = field(default_factory=dict[Key, RampWeight])

    def tenant(self, name: str) -> Tenant:
        ramps = {feature: weight for (who, feature), weight in self.weights.items() if who == name}
        return make_tenant(name, ramps=ramps)

    def all(self) -> list[Tenant]:
        return [self.tenant(name) for name in self.tenants]

    def reread(self) -> None:
        pass

    def set_weights(self, weights: Mapping[Key, RampWeight]) -> None:
        self.weights.update(weights)

    async def deploy(self, changes: Mapping[Key, RampWeight], *, urgent: bool) -> None:
        self.gateway.swap(self.all())

    async def ask(self) -> Sequence[Replica]:
        return await ask([self.gateway.operations])


@contextmanager
def load(gateway: Gateway, tenants: Sequence[str], **headers: str) -> Generator[Counter[tuple[str, int]]]:
    """Requests of the tenants one after the other, each with a key of its own, while the block runs."""
    done, answers = threading.Event(), Counter[tuple[str, int]]()

    def run(tenant: str) -> None:
        number = 0
        with httpx.Client(base_url=gateway.url, timeout=30) as http:
            while not done.is_set():
                number += 1
                named = {"x-tenant-id": tenant, "idempotency-key": f"{tenant}-{number}"}
                try:
                    status = http.post("/v1/search", headers={**named, **headers}).status_code
                except httpx.HTTPError:
                    status = 0
                answers[tenant, status] += 1
                time.sleep(0.002)

    threads = [threading.Thread(target=run, args=(tenant,)) for tenant in tenants]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()


async def led(url: str, mounted: Mounted, scraper: Scraper, tenants: Sequence[str]) -> dict[str, Ramp]:
    """Ramp ``search`` for the tenants at once, and say where each ended."""
    connection = await connect(url, "ramps")
    lease = Lease("ramps/dev", "test")
    assert await lease.acquire(connection)
    store = RampStore(connection, "dev", lease)
    ids = [
        (
            await store.start(
                tenant=tenant, feature="search", steps=(20, 100), gate=GATE, before=0, who="ann", program="0"
            )
        ).id
        for tenant in tenants
    ]
    conductor = Conductor(store, mounted, mounted, mounted, Counted(scraper.url), Freezes(), "test", "0")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await conductor.conduct():
        assert time.monotonic() < deadline, await store.active()
        await lease.renew(connection)
    found = [await store.get(number) for number in ids]
    await connection.close()
    return {ramp.tenant: ramp for ramp in found}


async def test_a_good_version_is_led_to_the_end_and_one_that_fails_for_a_tenant_is_taken_back(
    database_url: str, gateway: Gateway, scraper: Scraper, trial: UpstreamServer
) -> None:
    mounted = Mounted(gateway)
    gateway.start(mounted.all())
    scraper.start()
    trial.fails_for = {"globex"}
    with load(gateway, mounted.tenants) as answers:
        ended = await led(database_url, mounted, scraper, mounted.tenants)
    assert {name: (ramp.state, ramp.weight) for name, ramp in ended.items()} == {
        "acme": (State.DONE, 100),
        "globex": (State.REVERTED, 0),
    }
    assert "failing" in ended["globex"].reason
    # What the next version answers is what it answers; no request is lost to the ramps themselves.
    assert set(answers) == {("acme", 200), ("globex", 200), ("globex", 503)}
    connection = await connect(database_url, "reads")
    (revert,) = [
        step
        for step in await RampStore(connection, "dev").history("globex", None, 9)
        if step["act"] == "revert"
    ]
    await connection.close()
    assert revert["seconds"] is not None


async def test_copies_are_judged_before_anything_is_answered_by_the_next_version(
    database_url: str, gateway: Gateway, scraper: Scraper, trial: UpstreamServer
) -> None:
    mounted = Mounted(gateway, tenants=("acme",), weights={("acme", "search"): "shadow"})
    gateway.start(mounted.all())
    scraper.start()
    trial.fails_for = {"acme"}
    prometheus, since = Counted(scraper.url), time.time()
    subject = Subject("acme", "gold", "search", 5_000, shadow=True)
    with load(gateway, mounted.tenants) as answers:

        async def failed() -> bool:
            seen = [each.next for each in (await prometheus.figures(subject, since)).intervals]
            return sum(each.errors for each in seen) > 5

        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await failed():
            assert time.monotonic() < deadline
    assert {status for _, status in answers} == {200}


async def test_prometheus_away_and_back_is_told(gateway: Gateway, scraper: Scraper) -> None:
    mounted = Mounted(gateway, tenants=("acme",), weights={("acme", "search"): 50})
    gateway.start(mounted.all())
    prometheus, since = Counted(scraper.url), time.time()
    subject = Subject("acme", "gold", "search", 5_000)
    away = await prometheus.figures(subject, since)
    assert away.trouble == f"Prometheus at {scraper.url} does not answer (ConnectError)"
    scraper.start()
    with load(gateway, mounted.tenants):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := await prometheus.figures(subject, since)).intervals:
            assert time.monotonic() < deadline, found
        scraper.stop()
        await asyncio.sleep(1.5)
        scraper.start()
        while (found := await prometheus.figures(subject, since)).broken_at is None:
            assert time.monotonic() < deadline, found
    assert all(interval.start >= found.broken_at for interval in found.intervals)


async def test_a_gateway_says_what_it_has_refused(gateway: Gateway) -> None:
    mounted = Mounted(gateway, tenants=("acme",), weights={("acme", "search"): 5})
    gateway.start(mounted.all())
    (before,) = await ask([gateway.operations])
    wanted: dict[Key, RampWeight] = {("acme", "search"): 25}
    assert before.answer({("acme", "search"): 5}, None) is Answer.ACK
    assert before.answer(wanted, before.rejected) is Answer.NOT_YET
    mounted.weights = wanted
    files = {path.name: path.read_text() for path in gateway.directory.iterdir() if path.suffix == ".json"}
    gateway.mount(
        {**files, "routes.json": files["routes.json"].replace("weighted_clusters", "no_such_field")}
    )

    async def refused() -> bool:
        return (await ask([gateway.operations]))[0].answer(wanted, before.rejected) is Answer.NACK

    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await refused():
        assert time.monotonic() < deadline
    gateway.stop()
    (silent,) = await ask([gateway.operations])
    assert silent.answer(wanted, before.rejected) is Answer.SILENT
