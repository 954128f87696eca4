"""Lines in, sums out: whole chunks, torn lines, and whatever else may stand in a file."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilo.usage.sums import add_up
from tests.runtime.usage.support import line

ACME = ("2026-03-01T14", "acme", "api", "POST", "2xx", "stable", "")
_busy = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Whatever else runs on the machine."""


def test_requests_and_bytes_are_added_by_hour_and_mix() -> None:
    chunk = line() + line(received=7) + line(at="2026-03-01T15:00:00.000000") + line(status=429, version=None)
    sums = add_up(chunk)
    assert sums.entries == 4
    assert sums.unreadable == 0
    found = {mix: (each.requests, each.received, each.sent) for mix, each in sums.mixes.items()}
    assert found == {
        ACME: (2, 17, 10),
        ("2026-03-01T15", *ACME[1:]): (1, 10, 5),
        (*ACME[:4], "4xx", "", ""): (1, 10, 5),
    }


def test_what_follows_a_torn_line_is_an_entry_of_its_own() -> None:
    torn = line()[:40]
    sums = add_up(line() + torn + line() + line())
    assert (sums.entries, sums.unreadable) == (3, 1)


@pytest.mark.parametrize("cut", range(1, len(line()) - 1))
def test_a_line_torn_anywhere_costs_itself_alone(cut: int) -> None:
    for before, after in ((b"", line()), (line(), b""), (line(), line())):
        sums = add_up(before + line()[:cut] + b"\n" + after)
        assert (sums.entries, sums.unreadable) == (bool(before) + bool(after), 1)
        assert set(sums.mixes) <= {ACME}


@pytest.mark.parametrize(
    "odd",
    [
        b"\n",
        b"\0" * 50 + b"\n",
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b"null\n",
        line(received="1"),
        line(received=1.5),
        line(received=-1_000),
        line(received=10**30),
        line(received=True) + line(received="x"),
        line(at=5),
        line(at="2026-02-31T10:00:00.000000"),
        line(at="not a time at all"),
        line(tenant={"a": 1}),
        line().replace(b'"received":10', b'"received":NaN'),
    ],
)
def test_what_is_no_entry_is_told_and_stops_nothing(odd: bytes) -> None:
    sums = add_up(line() + odd + line())
    assert sums.mixes[ACME].requests == 2
    assert sums.unreadable >= 1


def test_nothing_passes_but_what_is_known() -> None:
    said = "John.Doe@example.com"
    chunk = line(tenant=said, route=said, method=said, version=said, shed=said, status=999)
    (mix,) = add_up(chunk).mixes
    assert mix == ("2026-03-01T14", "", "other", "other", "none", "", "")


@_busy
@given(st.lists(st.tuples(st.sampled_from(["acme", "globex", ""]), st.integers(0, 10**6)), max_size=50))
def test_sums_are_what_was_sent(requests: list[tuple[str, int]]) -> None:
    sums = add_up(b"".join(line(tenant=tenant, sent=sent) for tenant, sent in requests))
    assert sums.entries == len(requests)
    for name in ("acme", "globex", ""):
        mine = [sent for tenant, sent in requests if tenant == name]
        assert sum(each.requests for mix, each in sums.mixes.items() if mix[1] == name) == len(mine)
        assert sum(each.sent for mix, each in sums.mixes.items() if mix[1] == name) == sum(mine)


@_busy
@given(st.binary(max_size=200))
def test_no_bytes_are_a_defect(odd: bytes) -> None:
    sums = add_up(line() + odd + b"\n" + line())
    assert sums.entries >= 2
    json.dumps([list(mix) for mix in sums.mixes])
