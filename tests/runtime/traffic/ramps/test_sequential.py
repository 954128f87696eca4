"""What the sequential tests promise: few false alarms however often one looks, and an early true one."""

from __future__ import annotations

import random

import pytest

from kilo.traffic.ramps.sequential import evidence_above, evidence_of_worse

ALPHA = 0.05


def looked_at_always(chance: random.Random, bad_next: float, bad_stable: float, looks: int) -> int | None:
    """The first look at which evidence exceeds 1/alpha; the share of requests changes at each."""
    seen: list[tuple[int, int, int, int]] = []
    for look in range(1, looks + 1):
        following, stable = chance.choice(((5, 95), (25, 75), (50, 50)))
        seen.append(
            (
                following,
                sum(chance.random() < bad_next for _ in range(following)),
                stable,
                sum(chance.random() < bad_stable for _ in range(stable)),
            )
        )
        if evidence_of_worse(seen) >= 1 / ALPHA:
            return look
    return None


def test_looking_all_the_time_raises_no_more_false_alarms_than_promised() -> None:
    chance = random.Random(15)
    alarms = sum(looked_at_always(chance, 0.02, 0.02, 60) is not None for _ in range(200))
    # 10 are expected at most; 5 standard deviations above would be 25.
    assert alarms <= 20


def test_a_worse_version_is_found_soon() -> None:
    chance = random.Random(15)
    found = [looked_at_always(chance, 0.05, 0.01, 60) for _ in range(50)]
    assert all(found)
    assert sorted(look or 0 for look in found)[25] <= 15  # of 100 requests each


def test_an_outage_of_both_versions_and_a_changed_share_prove_nothing() -> None:
    assert evidence_of_worse([(5, 0, 95, 1)] * 20 + [(50, 50, 50, 50)] * 20) < 1
    # Summed over all, the next version failed in 50 % of its requests and the stable one in 5 %.
    assert evidence_of_worse([(1, 0, 999, 0), (1000, 500, 10, 5)]) < 2


@pytest.mark.parametrize(("bad", "proven"), [(0, False), (1, False), (5, False), (14, True), (1000, True)])
def test_evidence_against_an_objective(bad: int, proven: bool) -> None:
    assert (evidence_above(1000, bad, 0.001) > 100) == proven


def test_nothing_seen_is_no_evidence_and_large_counts_no_overflow() -> None:
    assert evidence_of_worse([]) == evidence_of_worse([(0, 0, 10, 3)]) == evidence_above(0, 0, 0.01) == 1
    assert evidence_of_worse([(10**9, 10**8, 10**9, 0)]) > 1e100
    assert evidence_of_worse([(10**9, 0, 10**9, 10**8)]) == 0
    assert evidence_above(10**9, 10**9, 0.001) > 1e100
