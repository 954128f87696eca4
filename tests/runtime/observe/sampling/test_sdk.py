"""The guard in OpenTelemetry's SDK: whole fragments, weights in tracestate; nothing leaks or raises."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, Tracer, TraceState

from kilo.observe.sampling import sdk
from kilo.observe.sampling.guard import Guard
from kilo.observe.sampling.probability import SPACE, probability_of, threshold_in
from kilo.observe.sampling.sdk import Fragments, GuardProcessor, GuardSampler

LOW, HIGH = 1 << 64, (1 << 64) | (SPACE - 1)
"""Ids of traces of which every threshold drops, and none does."""


class Traced:
    """A tracer behind a guard, and what it exports."""

    def __init__(self, budget: float = 1000.0, allowed: tuple[str, ...] = ()) -> None:
        self.now = 1000.0
        self.guard = Guard({"acme": budget}, allowed, clock=lambda: self.now)
        self.fragments = Fragments()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(
            sampler=GuardSampler(self.guard, self.fragments), shutdown_on_exit=False
        )
        self.provider.add_span_processor(
            GuardProcessor(self.guard, self.fragments, SimpleSpanProcessor(self.exporter))
        )
        self.tracer: Tracer = self.provider.get_tracer("test")

    @property
    def exported(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @contextmanager
    def span(self, name: str, parent: Context | None = None) -> Generator[trace.Span]:
        with self.tracer.start_as_current_span(name, parent, attributes={"kilo.tenant": "acme"}) as made:
            yield made

    def flood(self, seconds: int = 20, rate: int = 100, name: str = "work") -> None:
        """Make the thresholds rise."""
        for _ in range(seconds * rate):
            self.now += 1 / rate
            with self.span(name, Context()):
                pass
        assert self.guard.allowance("acme").limited
        self.exporter.clear()


def remote(trace_id: int, entry: str | None = None, *, sampled: bool = True) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    state = TraceState([("ot", entry)]) if entry else TraceState([("vendor", "1")])
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(trace_id, 1, True, flags, state)))


def weight(span: ReadableSpan) -> float:
    assert span.context
    threshold = threshold_in(span.context.trace_state.get("ot"))
    assert threshold is not None
    return 1 / probability_of(threshold)


def test_a_calm_tenants_spans_are_exported_with_weight_one() -> None:
    traced = Traced()
    with traced.span("outer", Context()), traced.span("inner"):
        pass
    assert [span.name for span in traced.exported] == ["inner", "outer"]
    assert {weight(span) for span in traced.exported} == {1.0}
    assert not traced.fragments.by_trace


def test_a_flood_is_sampled_whole_by_trace_and_weights_add_up() -> None:
    traced = Traced(budget=20)
    # From the standard library, so that the test repeats itself.
    random.seed(3)
    traced.flood()
    sent = 0
    for _ in range(1000):
        traced.now += 0.01
        with traced.span("outer", Context()), traced.span("inner"):
            sent += 2
    kept = traced.exported
    traces = {span.context.trace_id for span in kept if span.context}
    assert len(traces) * 2 == pytest.approx(len(kept), rel=0.1)
    assert sum(weight(span) for span in kept) == pytest.approx(sent, rel=0.25)
    assert len(kept) <= 10 * 20 * 1.05 + 50


def test_services_agree_about_a_trace_without_speaking() -> None:
    first, second = Traced(budget=20), Traced(budget=20)
    for traced in (first, second):
        traced.flood()
    for trace_id, expected in ((HIGH, 1), (LOW, 0)):
        for traced in (first, second):
            traced.exporter.clear()
            traced.now += 0.1
            with traced.span("work", remote(trace_id)):
                pass
            assert len(traced.exported) == expected


def test_the_callers_flag_is_not_obeyed_and_its_randomness_is() -> None:
    traced = Traced(budget=20)
    traced.flood()
    with traced.span("work", remote(LOW, sampled=True)):
        pass
    assert traced.exported == []
    with traced.span("work", remote(LOW, f"rv:{SPACE - 1:x}", sampled=False)):
        pass
    (kept,) = traced.exported
    assert kept.context
    assert kept.context.trace_state["ot"].endswith(f";rv:{SPACE - 1:x}")


@pytest.mark.parametrize("how", ["error", "slow"])
def test_what_failed_or_was_slow_is_kept_with_all_that_led_to_it(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = Traced(budget=20)
    traced.flood()
    traced.now += 10
    with traced.span("work", remote(LOW)) as outer:
        with traced.span("inner"):
            pass
        if how == "error":
            outer.set_status(StatusCode.ERROR)
        else:
            monkeypatch.setattr("opentelemetry.sdk.trace.time_ns", lambda: 1 << 62)
    assert [(s.name, s.attributes and s.attributes["kilo.sampling"]) for s in traced.exported] == [
        ("inner", how),
        ("work", how),
    ]
    assert {weight(span) for span in traced.exported} == {1.0}
    assert all(span.context and span.context.trace_flags.sampled for span in traced.exported)


def test_key_spans_are_kept_under_a_flood() -> None:
    traced = Traced(budget=20, allowed=("key",))
    traced.flood()
    for _ in range(50):
        traced.now += 1
        with traced.span("key", remote(LOW)):
            pass
    assert len(traced.exported) == 50


def test_one_huge_trace_does_not_starve_the_others() -> None:
    traced = Traced(budget=20)
    with traced.span("huge", Context()):
        for place in range(5000):
            traced.now += 0.002
            with traced.span("row"):
                pass
            if place % 100 == 0:
                token = trace.set_span_in_context(trace.INVALID_SPAN)
                with traced.tracer.start_as_current_span("other", token, attributes={"kilo.tenant": "acme"}):
                    pass
    names = [span.name for span in traced.exported]
    assert names.count("other") > 40
    assert len(names) < 20 * 10 * 1.05 + 60


def test_spans_that_are_never_ended_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "FRAGMENTS", 10)
    traced = Traced()
    for _ in range(100):
        traced.tracer.start_span("leak", Context(), attributes={"kilo.tenant": "acme"})
    assert len(traced.fragments.by_trace) <= 20
    with traced.span("work", Context()):
        pass
    assert [span.name for span in traced.exported] == ["work"]


def test_many_traces_open_at_once_are_settled_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "FRAGMENTS", 10)
    traced = Traced()
    roots = [
        traced.tracer.start_span("root", Context(), attributes={"kilo.tenant": "acme"}) for _ in range(15)
    ]
    for root in roots:
        traced.tracer.start_span("child", trace.set_span_in_context(root)).end()
    assert 0 < len(traced.exported) < 15
    for root in roots:
        root.end()
    traced.provider.shutdown()
    names = [span.name for span in traced.exported]
    assert names.count("child") == 15


def test_what_is_open_at_the_end_is_exported() -> None:
    traced = Traced()
    root = traced.tracer.start_span("root", Context(), attributes={"kilo.tenant": "acme"})
    traced.tracer.start_span("child", trace.set_span_in_context(root)).end()
    assert traced.exported == []
    traced.provider.shutdown()
    assert [span.name for span in traced.exported] == ["child"]


def test_a_guard_that_fails_drops_and_counts_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced()
    monkeypatch.setattr(traced.guard, "allowance", lambda _: 1 / 0)
    with traced.span("work", Context()):
        pass
    assert traced.exported == []
    assert traced.guard.failures == 1


def test_a_full_tracestate_still_carries_the_threshold() -> None:
    traced = Traced()
    state = TraceState([(f"v{number}", "x") for number in range(32)])
    context = SpanContext(HIGH, 1, True, TraceFlags(1), state)
    with traced.span("work", trace.set_span_in_context(NonRecordingSpan(context))):
        pass
    (kept,) = traced.exported
    assert kept.context
    assert len(kept.context.trace_state) == 32
    assert weight(kept) == 1.0


@pytest.mark.parametrize("tenant", [7, "nobody", True])
def test_a_tenant_that_is_none_is_the_unknown_ones(tenant: object) -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("work", Context(), attributes={"kilo.tenant": tenant}):  # pyright: ignore[reportArgumentType]
        pass
    assert list(traced.guard.states()) == ["unknown"]
