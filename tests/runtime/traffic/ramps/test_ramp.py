"""Plans, freeze windows, and gateways that answer anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from kilo.errors import BadInput
from kilo.tenancy import RampWeight
from kilo.traffic.ramps.confirm import Replica, weights_in
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.ramp import parse_weight, plan_steps


@pytest.mark.parametrize(
    ("steps", "to", "current", "planned"),
    [
        ((1, 5, 25, 50, 100), 100, 0, (1, 5, 25, 50, 100)),
        (("shadow", 1, 10), 25, 0, ("shadow", 1, 10, 25)),
        (("shadow", 1, 10), 5, "shadow", (1, 5)),
        ((1, 5, 25), 100, 5, (25, 100)),
    ],
)
def test_steps_lead_from_what_there_is_to_what_is_wanted(
    steps: tuple[RampWeight, ...], to: int, current: RampWeight, planned: tuple[RampWeight, ...]
) -> None:
    assert plan_steps(steps, to, current) == planned


def test_steps_rise() -> None:
    with pytest.raises(BadInput, match="--steps: 5,1 do not rise"):
        plan_steps([5, 1], 100, 0)
    with pytest.raises(BadInput, match="--to: 25 is not above the weight that there is, 25"):
        plan_steps([1, 5], 25, 25)
    for text in ("101", "-1", "2.5", "", "dark", "٣"):
        with pytest.raises(BadInput, match="is no weight"):
            parse_weight(text)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("fri-sun 16:00-06:00", "2026-11-27T16:00", "2026-11-27T15:59"),
        ("fri-sun 16:00-06:00", "2026-11-30T05:59", "2026-11-30T06:00"),
        ("sat-mon 00:00-23:59", "2026-11-29T12:00", "2026-12-01T12:00"),
        ("wed 09:00-10:00", "2026-11-25T09:30", "2026-11-26T09:30"),
        ("2026-12-23T00:00Z/2027-01-02T00:00Z", "2026-12-31T23:59", "2027-01-02T00:00"),
    ],
)
def test_windows_hold_from_their_start_to_before_their_end(window: str, inside: str, outside: str) -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    freezes = Freezes([window])
    assert freezes.reason(at(inside)) == f"frozen ({window} UTC)"
    assert freezes.reason(at(outside)) == ""


@pytest.mark.parametrize("text", ["friday", "fri 25:00-26:00", "xxx 10:00-11:00", "fri 10:00-10:00", "fri"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no window; use"):
        Freezes([text])


@pytest.mark.parametrize("dump", [{}, {"configs": []}])
def test_a_gateway_without_routes_has_no_weights(dump: dict[str, Any]) -> None:
    assert weights_in(dump) == {}
    assert Replica("http://one", {}).answer({("acme", "search"): 5}, None) == "not yet"


async def test_the_rehearsal_fails_for_whom_it_is_told() -> None:
    from kilo.tour.rehearsal import make_app

    transport = httpx.ASGITransport(make_app(frozenset({"globex"}), "x-tenant-id"))
    async with httpx.AsyncClient(transport=transport, base_url="http://rehearsal") as http:
        for tenant, status in (("acme", 202), ("globex", 500)):
            answer = await http.post("/v1/events", headers={"x-tenant-id": tenant}, content=b"{}")
            assert answer.status_code == status
        assert (await http.get("/readyz")).status_code == 200
