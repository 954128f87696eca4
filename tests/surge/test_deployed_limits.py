"""The rate limit service that a stage deploys: exact over its gateways, and nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kilo.tenancy import RateLimit
from tests.patience import eventually
from tests.surge.fleet import EVEN, UNEVEN, Fleet, Offered
from tests.surge.limit_stage import GATEWAY, SERVICE, STORE, LimitStage

RATE = 40
LIMIT = RateLimit(requests_per_second=RATE, burst=RATE)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitStage]:
    # Whoever works on these tests has one that is up, and takes it down.
    kept = os.environ.get("KILO_LIMITS_STAGE")
    made = LimitStage(Path(kept) if kept else tmp_path_factory.mktemp("stage"), LIMIT)
    try:
        if not kept:
            done = made.kilo("up", "--no-tour")
            assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        if not kept:
            made.kilo("down")
    assert kept or made.processes() == []


@pytest.fixture
async def fleet(stage: LimitStage) -> Fleet:
    found = stage.fleet()
    await found.counted_again()
    return found


def holds(away: Offered) -> None:
    """Each gateway's part was served where the service did not answer, and no request was lost."""
    assert away.lost == 0
    assert away.uncounted
    # Where it did answer, it may have refused what the split lets through.
    assert away.split * 0.9 - away.answered <= away.passed <= away.most


async def is_exact(fleet: Fleet) -> None:
    """All of the limit is served, however the load lies."""
    await fleet.counted_again()
    asked = await fleet.offer(RATE * 0.9, UNEVEN)
    assert asked.lost == 0
    assert asked.passed >= asked.counted * 0.95 - asked.uncounted


async def test_a_limit_is_exact_over_gateways_however_the_load_lies(fleet: Fleet) -> None:
    asked = await fleet.offer(RATE * 0.9, UNEVEN)
    assert asked.passed >= asked.counted * 0.95 - asked.uncounted
    # By the split, the first gateway would have served a third.
    assert asked.passed > asked.most_split or asked.uncounted > asked.counted / 2
    surge = await fleet.offer(RATE * 5, UNEVEN)
    assert surge.counted * 0.9 - surge.uncounted <= surge.passed <= surge.most
    assert asked.lost == surge.lost == 0


@pytest.mark.parametrize("workload", [SERVICE, STORE])
async def test_what_is_killed_starts_anew_and_nobody_notices(
    stage: LimitStage, fleet: Fleet, workload: str
) -> None:
    before = stage.runs(workload)
    surge = asyncio.create_task(fleet.offer(RATE * 3, EVEN))
    await eventually(lambda: fleet.sent > RATE, "the surge is there")
    stage.signal(workload, signal.SIGKILL)
    result = await surge
    assert result.lost == 0
    assert result.passed <= result.most
    await asyncio.to_thread(stage.started_anew, workload, before)
    await is_exact(fleet)


async def test_without_any_pod_of_it_the_split_holds(stage: LimitStage, fleet: Fleet) -> None:
    with stage.without("Deployment", SERVICE):
        await fleet.offer(RATE * 3, EVEN, 3)
        holds(await fleet.offer(RATE * 3, EVEN, 6))
        holds(await fleet.offer(RATE, UNEVEN, 6))
    await is_exact(fleet)


@pytest.mark.parametrize("workload", [SERVICE, STORE])
async def test_what_hangs_is_not_waited_for_and_is_started_anew(
    stage: LimitStage, fleet: Fleet, workload: str
) -> None:
    before = stage.runs(workload)
    stage.signal(workload, signal.SIGSTOP)
    await fleet.offer(RATE * 3, EVEN, 3)
    holds(await fleet.offer(RATE * 3, EVEN, 6))
    # By its probe, a minute later at most.
    await asyncio.to_thread(stage.started_anew, workload, before)
    await is_exact(fleet)


async def test_a_changed_limit_is_in_force_without_a_new_pod(stage: LimitStage, fleet: Fleet) -> None:
    fleet.close()
    before = {workload: stage.runs(workload) for workload in (GATEWAY, SERVICE, STORE)}
    stage.set_limit(RateLimit(requests_per_second=RATE // 4, burst=RATE // 4))
    done = await asyncio.to_thread(stage.kilo, "up", "--no-tour")
    assert done.returncode == 0, done.stdout + done.stderr
    changed = stage.fleet()
    await changed.counted_again()
    await changed.told(RATE // 4)
    surge = await changed.offer(RATE, UNEVEN)
    assert surge.counted * 0.9 - surge.uncounted <= surge.passed <= surge.most
    assert {workload: stage.runs(workload) for workload in before} == before


async def test_prometheus_sees_the_service(stage: LimitStage, fleet: Fleet) -> None:
    await fleet.counted_again()
    url = stage.outputs["monitoring"]["prometheus_url"]

    def seen() -> bool:
        query = f'ratelimit_service_total_requests{{job="{SERVICE}"}}'
        return bool(httpx.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"])

    await eventually(seen, "its requests are counted")
