"""The tour's arithmetic."""

from __future__ import annotations

import pytest

from kilo.tour.count import TenantCount
from kilo.tour.report import as_json, percentile, total


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_lost_is_what_was_acknowledged_and_not_delivered() -> None:
    line = TenantCount(sent=10, acknowledged=9, refused=1, by_worker=5, by_cdc=2)
    assert line.lost == 2
    assert as_json(line)["lost"] == 2


def test_the_total_adds_every_column() -> None:
    one = TenantCount(sent=1, acknowledged=1, by_worker=1, latencies=[0.1], encrypted={"email": 1})
    two = TenantCount(
        sent=2, acknowledged=2, by_cdc=2, duplicates=3, latencies=[0.2, 0.3], encrypted={"email": 2}
    )
    whole = total({"acme": one, "globex": two})
    assert (whole.sent, whole.delivered, whole.duplicates, whole.lost) == (3, 3, 3, 0)
    assert whole.latencies == [0.1, 0.2, 0.3]
    assert whole.encrypted == {"email": 3}
