"""A ramp from its start to its end, and everything that may come between."""

from __future__ import annotations

import psycopg
import pytest

from kilo.database.lease import LeaseLost
from kilo.database.session import connect
from kilo.errors import BadInput
from kilo.fle.audit import log
from kilo.traffic.ramps.audit import export
from kilo.traffic.ramps.counted import Subject
from kilo.traffic.ramps.figures import Counts
from kilo.traffic.ramps.ramp import State
from kilo.traffic.ramps.store import RampStore
from tests.runtime.traffic.ramps.support import (
    Killed,
    World,
    acts,
    conduct,
    conducting,
    good,
    start,
)

KEY = ("acme", "search")
WHOLE = [("started", "0", "0"), ("step", "0", "5"), ("step", "5", "100"), ("done", "100", "100")]
REVERTED = [("started", "0", "0"), ("step", "0", "5"), ("revert", "5", "0")]


def failing(subject: Subject, _: float) -> tuple[Counts, Counts]:
    return Counts(900), Counts(100, errors=50 if subject.tenant == "acme" else 0)


async def test_a_good_version_is_led_to_the_end(database_url: str) -> None:
    world = World()
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        last = await conduct(conductor, world)
    assert last is not None
    assert (last.state, last.weight, world.file[KEY], world.deployed[KEY]) == (State.DONE, 100, 100, 100)
    assert await acts(database_url) == WHOLE
    assert world.runs == [{KEY: 5}, {KEY: 100}]
    with psycopg.connect(database_url) as connection:
        assert (export(connection, "dev"), export(connection, "dev"), export(connection, "prod")) == (4, 0, 0)
        entries = [entry.fields() for entry in log.read(connection)]
        marks = connection.execute("SELECT act, weight_to FROM ramp_annotations ORDER BY at").fetchall()
    assert [entry["action"] for entry in entries] == ["ramp-started", "ramp-step", "ramp-step", "ramp-done"]
    assert entries[1]["subject"] == "ramp/dev/acme/search"
    assert marks == [("step", "5"), ("step", "100")]


async def test_one_that_fails_for_one_tenant_is_reverted_for_that_one_alone(database_url: str) -> None:
    world = World(rates=failing)
    await start(database_url)
    await start(database_url, "globex")
    async with conducting(database_url, world) as conductor:
        await conduct(conductor, world)
    assert world.deployed == {KEY: 0, ("globex", "search"): 100}
    connection = await connect(database_url, "reads")
    history = await RampStore(connection, "dev").history("acme", None, 10)
    await connection.close()
    (revert,) = [each for each in history if each["act"] == "revert"]
    assert "failing: 50 of 100" in revert["reason"]
    assert revert["figures"]["next"] == {"requests": 100, "errors": 50, "slow": 0}
    assert revert["seconds"] < 5


@pytest.mark.parametrize("bad", [False, True], ids=["to the end", "reverted"])
async def test_killed_at_any_instant_it_resumes_where_it_was(database_url: str, bad: bool) -> None:
    killed = 0
    # Both kinds are the same up to the gate: each takes every second instant.
    for fuse in range(bad, 40, 2):
        key = ("acme", f"search-{fuse}")
        world = World(fuse=fuse, rates=failing if bad else good)
        await start(database_url, feature=key[1])
        try:
            async with conducting(database_url, world) as conductor:
                await conduct(conductor, world)
        except Killed:
            killed += 1
            world.fuse = None
            async with conducting(database_url, world) as conductor:
                await conduct(conductor, world)
        assert await acts(database_url, key[1]) == (REVERTED if bad else WHOLE), fuse
        assert world.deployed[key] == (0 if bad else 100)
    assert 7 < killed < 20, "the last fuses must outlast a whole ramp"


async def test_a_second_ramp_of_the_same_is_refused(database_url: str) -> None:
    await start(database_url)
    with pytest.raises(BadInput, match=r"acme search: ann began a ramp at .* which stands at 0"):
        await start(database_url)
    await start(database_url, "globex")
    await start(database_url, feature="other")


async def test_only_one_process_conducts(database_url: str) -> None:
    world = World()
    async with conducting(database_url, world):
        with pytest.raises(AssertionError):
            async with conducting(database_url, world):
                pass


@pytest.mark.parametrize("passes", [1, 2])
async def test_a_persons_change_wins(database_url: str, passes: int) -> None:
    world = World()
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        await conduct(conductor, world, passes)
        world.file[KEY] = 42
        last = await conduct(conductor, world)
    assert last is not None
    assert (last.state, last.reason) == (State.OVERRIDDEN, "somebody set the weight to 42, which stays")
    assert world.file[KEY] == 42
    assert (await acts(database_url))[-1] == ("overridden", "5", "42")


async def test_what_is_not_carried_out_is_held_and_tried_again(database_url: str) -> None:
    world = World(refuses="another deployment has locked the state")
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        held = await conduct(conductor, world, 5)
        assert held is not None
        assert (held.pending, held.reason) == (
            5,
            "not carried out: another deployment has locked the state",
        )
        world.refuses = None
        await conduct(conductor, world)
    assert await acts(database_url) == WHOLE


@pytest.mark.parametrize(
    ("gateway", "said"), [("http://zz-silent", "no answer"), ("http://zz-old", "not yet")]
)
async def test_a_gateway_without_the_step_holds_and_is_named(
    database_url: str, gateway: str, said: str
) -> None:
    world = World(stuck={gateway})
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        conductor.patience_seconds = 2
        held = await conduct(conductor, world, 3)
        assert held is not None
        assert held.reason == f"not in force in 1 of 3 gateways: {gateway}: {said}"
        assert (held.weight, held.pending) == (0, 5)
        # The engine has done its part: it is not run again for that.
        assert world.runs == [{KEY: 5}]
        world.stuck.clear()
        await conduct(conductor, world)
    assert await acts(database_url) == WHOLE


@pytest.mark.parametrize("trouble", ["Prometheus at x does not answer", "the figures are 90 s old"])
async def test_without_figures_nothing_goes_forward(database_url: str, trouble: str) -> None:
    world = World(trouble=trouble)
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        held = await conduct(conductor, world, 20)
    assert held is not None
    assert (held.weight, held.reason) == (5, trouble)


async def test_a_tenant_that_has_left_keeps_no_other_waiting(database_url: str) -> None:
    world = World(gone={"acme"})
    await start(database_url)
    await start(database_url, "globex")
    async with conducting(database_url, world) as conductor:
        held = await conduct(conductor, world, 20)
    assert held is not None
    assert (held.tenant, held.reason) == ("acme", "not carried out: no tenant 'acme'")
    assert world.deployed == {("globex", "search"): 100}


async def test_paused_it_stays_resumed_it_goes_on_and_reverted_it_goes_back(database_url: str) -> None:
    world = World()
    ramp = await start(database_url)
    connection = await connect(database_url, "asks")
    asked = RampStore(connection, "dev")
    async with conducting(database_url, world) as conductor:
        await conduct(conductor, world, 2)
        await asked.request(ramp, State.PAUSED, "lunch", "bob", "0.0")
        held = await conduct(conductor, world, 20)
        assert held is not None
        assert (held.state, held.weight, held.reason) == (State.PAUSED, 5, "lunch")
        await asked.request(ramp, State.RUNNING, "back", "bob", "0.0")
        await conduct(conductor, world, 2)
        assert world.deployed[KEY] == 100
        await asked.request(ramp, State.REVERTING, "a complaint", "bob", "0.0")
        with pytest.raises(BadInput, match="the ramp is reverting"):
            await asked.request(ramp, State.PAUSED, "no", "bob", "0.0")
        last = await conduct(conductor, world)
    await connection.close()
    assert last is not None
    assert (last.state, world.deployed[KEY], world.file[KEY]) == (State.REVERTED, 0, 0)
    assert [act for act, _, _ in await acts(database_url)] == [
        "started",
        "step",
        "paused",
        "resumed",
        "step",
        "reverting",
        "revert",
    ]


async def test_frozen_nothing_goes_forward_and_a_revert_does(database_url: str) -> None:
    world = World()
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        await conduct(conductor, world, 2)
    async with conducting(database_url, world, ["mon-sun 00:00-23:59"]) as conductor:
        held = await conduct(conductor, world, 20)
        assert held is not None
        assert held.weight == 5
        assert held.reason.startswith("frozen (mon-sun 00:00-23:59 UTC); ")
        world.rates = failing
        last = await conduct(conductor, world)
    assert last is not None
    assert last.state is State.REVERTED


async def test_a_process_that_lost_its_lease_writes_nothing(database_url: str) -> None:
    world = World()
    await start(database_url)
    async with conducting(database_url, world) as conductor:
        await conduct(conductor, world, 2)
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE leases SET epoch = nextval('lease_epoch_seq')")
        with pytest.raises(LeaseLost):
            await conduct(conductor, world)
    assert await acts(database_url) == WHOLE[:2]


async def test_records_are_not_changed(database_url: str) -> None:
    await start(database_url)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.RaiseException):
        connection.execute("UPDATE ramp_steps SET who = 'nobody'")
