"""Samples into figures: what is counted, and every hole that there may be."""

from __future__ import annotations

import pytest

from kilo.observe.prometheus import Samples, Series
from kilo.traffic.ramps.counted import read
from kilo.traffic.ramps.figures import Counts, Figures, compare

NOW = 1_000.0
TIMES = [float(moment) for moment in range(820, 1_000, 15)]  # 820, 835, … 985
REQUESTS = "envoy_gateway_requests_total"
DURATION = "envoy_gateway_request_duration_milliseconds"


def up(instance: str = "a:1", times: list[float] = TIMES, value: float = 1) -> Series:
    return Series({"instance": instance}, [(moment, value) for moment in times])


def counter(name: str, samples: Samples, instance: str = "a:1", **labels: str) -> Series:
    return Series({"__name__": name, "instance": instance, **labels}, samples)


def rising(per_interval: float, times: list[float] = TIMES, start: float = 0) -> Samples:
    return [(moment, start + per_interval * number) for number, moment in enumerate(times)]


def figures(
    *counters: Series, scrapes: list[Series] | None = None, current: set[str] | None = None
) -> Figures:
    return read(scrapes or [up()], current or {"a:1"}, counters, [], NOW, TIMES[0])


def test_versions_are_counted_apart_without_what_was_refused_for_a_limit() -> None:
    found = figures(
        counter(REQUESTS, rising(10), version="stable", status="200"),
        counter(REQUESTS, rising(3), version="stable", status="429"),
        counter(REQUESTS, rising(2), version="next", status="201"),
        counter(REQUESTS, rising(1), version="next", status="503"),
        counter(f"{DURATION}_count", rising(3), version="next"),
        counter(f"{DURATION}_bucket", rising(2), version="next", le="300"),
    )
    assert found.trouble is None
    whole = compare(found.intervals)
    assert (whole.seconds, whole.stable, whole.next) == (165, Counts(110), Counts(33, 11, 11))


def test_a_series_that_begins_with_a_failure_counts_it() -> None:
    found = figures(counter(REQUESTS, rising(0, TIMES[5:], start=7), version="next", status="500"))
    assert compare(found.intervals).next == Counts(7, 7)


def test_a_gateway_that_started_anew_counts_from_nothing() -> None:
    samples = [*rising(10, TIMES[:6], start=500), *rising(10, TIMES[6:], start=4)]
    found = figures(counter(REQUESTS, samples, version="next", status="200"))
    assert compare(found.intervals).next.requests == 50 + 4 + 50


def test_copies_are_the_next_versions_answers() -> None:
    cluster = {"envoy_cluster_name": "shadow/search/acme"}
    found = figures(
        counter("envoy_cluster_upstream_rq", rising(9), envoy_response_code="200", **cluster),
        counter("envoy_cluster_upstream_rq", rising(1), envoy_response_code="500", **cluster),
        counter("envoy_cluster_upstream_rq_time_count", rising(10), **cluster),
        counter("envoy_cluster_upstream_rq_time_bucket", rising(8), le="300.0", **cluster),
    )
    assert compare(found.intervals).next == Counts(110, 11, 22)


@pytest.mark.parametrize(
    ("scrapes", "current", "said"),
    [
        ([], set[str](), "Prometheus scrapes no gateway"),
        ([up(times=TIMES[-1:])], {"a:1"}, "no figures yet: each gateway was scraped once at most"),
        ([up(times=TIMES[:-4])], {"a:1"}, "the figures of gateway a:1 are 75 s old"),
        ([up()], {"a:1", "b:1"}, "the figures of gateway b:1 are missing"),
        ([up(), up("b:1", value=0)], {"a:1", "b:1"}, "gateway b:1 could not be scraped"),
    ],
    ids=["no target", "just started", "behind", "one unknown", "one down"],
)
def test_what_can_not_be_known_is_said(scrapes: list[Series], current: set[str], said: str) -> None:
    assert read(scrapes, current, [], [], NOW, TIMES[0]).trouble == said


@pytest.mark.parametrize("hole", ["restart", "failed scrape"])
def test_what_was_before_a_hole_does_not_count(hole: str) -> None:
    times = [moment for moment in TIMES if not 865 <= moment <= 895]
    scrape = up(times=times)
    if hole == "failed scrape":
        scrape = Series(
            {"instance": "a:1"}, [(moment, 0.0 if 865 <= moment <= 895 else 1.0) for moment in TIMES]
        )
    samples = [(moment, value) for moment, value in rising(10) if moment in times]
    found = figures(counter(REQUESTS, samples, version="next", status="200"), scrapes=[scrape])
    assert (found.trouble, found.broken_at) == (None, 910)
    assert found.intervals[0].start == 910


def test_a_gateway_that_is_gone_or_new_makes_no_hole() -> None:
    gone, new = up("gone:1", TIMES[:4]), up("new:1", TIMES[8:])
    found = figures(
        counter(REQUESTS, rising(5, TIMES[:4]), "gone:1", version="next", status="200"),
        counter(REQUESTS, rising(5, TIMES[8:]), "new:1", version="next", status="200"),
        scrapes=[up(), gone, new],
        current={"a:1", "new:1"},
    )
    assert (found.trouble, found.broken_at) == (None, None)
    assert compare(found.intervals).next.requests == 15 + 15


def test_only_what_the_queue_refused_lately_counts() -> None:
    times = [(955.0, 0.0), (970.0, 9.0)]
    for newest, refused in ((9.0, 0), (11.0, 2)):
        queue = [Series({"instance": "a:1"}, [*times, (985.0, newest)])]
        assert read([up()], {"a:1"}, [], queue, NOW, TIMES[0]).refused == refused
