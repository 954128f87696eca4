"""When a connector that says that it is well has to be started again all the same."""

from __future__ import annotations

import asyncio

import pytest

from kilo.cdc.watch import ConnectorWatch, SlotLook, StallWatch
from kilo.health import Health
from kilo.testing.servers.ports import free_port

WAITS = SlotLook(100, 200, decoding=False)


def seconds(*looks: SlotLook | None) -> float:
    """For how long a connector is stalled after these looks, ten seconds apart."""
    stall = StallWatch()
    return [stall.observe(10.0 * number, look) for number, look in enumerate(looks)][-1]


def test_wal_that_waits_while_nothing_is_confirmed_is_a_stall() -> None:
    assert seconds(WAITS, WAITS, WAITS, SlotLook(100, 900, decoding=False)) == 20


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(SlotLook(101, 900, decoding=False), id="the position moved"),
        pytest.param(SlotLook(100, 100, decoding=False), id="nothing waits"),
        pytest.param(SlotLook(100, 900, decoding=True), id="a long transaction is decoded"),
        pytest.param(None, id="nobody answered"),
    ],
)
def test_any_sign_of_progress_begins_the_time_anew(look: SlotLook | None) -> None:
    assert seconds(WAITS, WAITS, WAITS, look) == 0
    assert seconds(WAITS, WAITS, look, WAITS, WAITS, WAITS) <= 20


def test_a_quiet_database_that_wakes_up_has_the_whole_time() -> None:
    quiet = SlotLook(100, 100, decoding=False)
    assert seconds(*[quiet] * 100, WAITS) == 0


def test_it_asks_the_database_while_the_connector_is_away() -> None:
    health = Health("database")
    stopping = asyncio.Event()
    nobody = f"127.0.0.1:{free_port()}"
    watch = ConnectorWatch(f"postgresql://{nobody}/none", "slot", f"http://{nobody}/live", health)

    async def look_once() -> None:
        # It looks before it waits, however soon it is stopped then.
        asyncio.get_running_loop().call_soon(stopping.set)
        await watch.run(stopping)

    asyncio.run(look_once())
    assert "does not answer" in (watch.reason or "")
    assert "starting" not in health.reasons["database"]
