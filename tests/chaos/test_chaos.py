"""Events while everything is killed, cut, stalled and filled at random, over either bus.

None lost, one effect each, order kept per aggregate. ``make soak MINUTES=60`` runs the same for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import BusName, run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bus", ["nats", "kafka"])
def test_whatever_is_done_to_it_nothing_is_lost_and_nothing_happens_twice(
    tmp_path: Path, bus: BusName
) -> None:
    done = run(tmp_path, bus, seconds=60)
    assert set(done.faults.counts) == set(done.faults.names)
    assert done.outcome.acknowledged > 1000, done.outcome
    assert done.outcome.holds, done.outcome
    assert set(done.outcome.by_publisher) == {"worker", "cdc"}
