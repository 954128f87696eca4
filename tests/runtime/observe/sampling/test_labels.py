"""A label's values beyond its budget become one, and metric and label are named."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kilo.observe import metrics
from kilo.observe.sampling import labels


def folded(metric: str, label: str) -> float:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value("metric_labels_folded_total", {"metric": metric, "label": label}) or 0


def test_values_beyond_the_budget_fold_into_other() -> None:
    registry = CollectorRegistry()
    counter = metrics.CONSUMER_EVENTS.create(registry)
    before = folded("consumer_events_total", "kind")
    for place in range(labels.VALUES + 50):
        counter.labels(f"kind-{place}", "handled").inc()
        counter.labels("kind-0", "handled").inc()
    text = generate_latest(registry).decode()
    assert text.count('kind="kind-') == 2 * labels.VALUES, "with the time each was made"
    assert registry.get_sample_value("consumer_events_total", {"kind": "other", "outcome": "handled"}) == 50
    # The first keep their series.
    assert (
        registry.get_sample_value("consumer_events_total", {"kind": "kind-0", "outcome": "handled"})
        == labels.VALUES + 51
    )
    assert folded("consumer_events_total", "kind") - before == 50
    assert folded("consumer_events_total", "outcome") == 0


@pytest.mark.parametrize(
    "declared", [metrics.CONSUMER_EVENTS, metrics.DEAD_LETTERS_WAITING, metrics.CONSUMER_HANDLER_DURATION]
)
def test_every_kind_of_metric_is_bounded(declared: metrics.Metric) -> None:
    registry = CollectorRegistry()
    made = declared.create(registry)  # pyright: ignore[reportAttributeAccessIssue]
    for place in range(labels.VALUES * 3):
        made.labels(
            **{name: f"{name}-{place}" for name in declared.labels if name != "tenant"}
            | ({"tenant": "acme"} if "tenant" in declared.labels else {})
        )
    series = {line.partition(" ")[0] for line in generate_latest(registry).decode().splitlines()}
    assert sum("kind=" in line for line in series) < (labels.VALUES + 1) * 20


def test_tenants_have_the_budget_of_a_stage() -> None:
    budget = labels.LabelBudget(("tenant", "kind"), lambda _: None)
    for place in range(labels.VALUES * 2):
        assert budget.fold((f"t{place}", "k")) == (f"t{place}", "k")


def test_a_value_that_is_too_long_is_other() -> None:
    seen: list[str] = []
    budget = labels.LabelBudget(("kind",), seen.append)
    assert budget.fold(("x" * 129,)) == ("other",)
    assert seen == ["kind"]
