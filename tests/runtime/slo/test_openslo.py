"""Objectives out to OpenSLO and in again, and documents that say something else."""

from __future__ import annotations

import pytest

from kilo.errors import BadInput
from kilo.slo.openslo import read_openslo, render_openslo
from kilo.slo.status import Standing
from kilo.tenancy import Objective


def standing(tenant: str, objective: str, target: float, threshold_ms: int | None = None) -> Standing:
    return Standing(tenant, objective, target, threshold_ms, None, None, None, None, None)


TEXT = render_openslo(
    [standing("acme", "latency", 0.99, 300), standing("acme", "availability", 0.9995)], "kilo"
)


def test_what_goes_out_comes_in_again() -> None:
    assert read_openslo(TEXT, "x.yaml") == {
        "acme": Objective(availability_percent=99.95, latency_threshold_ms=300, latency_percent=99)
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "apiVersion: openslo/v1",
            "apiVersion: openslo/v2",
            "x.yaml: document 1: apiVersion is not openslo/v1",
        ),
        ("duration: 30d", "duration: 28d", "spec.timeWindow: {duration: 30d, isRolling: true} is needed"),
        ("Occurrences", "Timeslices", "only Occurrences is counted"),
        ("target: 0.9995", "target: 1.5", "acme: Input should be less than 100"),
        ("target: 0.9995", "target: many", "ValueError: could not convert string to float"),
        ("service: acme", "services: acme", "KeyError: 'service'"),
        ("kind: SLO", "kind: [SLO", "x.yaml: not YAML"),
    ],
)
def test_what_a_tenant_can_not_be_promised_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_openslo(TEXT.replace(old, new, 1), "x.yaml")
    assert said in str(refused.value)


def test_half_a_promise_is_refused() -> None:
    half = render_openslo([standing("acme", "availability", 0.999)], "kilo")
    with pytest.raises(BadInput, match="acme: latency_percent, latency_threshold_ms: no document says it"):
        read_openslo(half, "x.yaml")
    with pytest.raises(BadInput, match="document 2: acme has a second availability_percent"):
        read_openslo(half + half, "x.yaml")
