"""The guard in OpenTelemetry's SDK: a sampler that asks it and a processor that settles.

Spans of one trace in this process are a fragment. They are held until its last one has ended, and only then
is it known whether it failed or was slow; so a fragment is kept or dropped as a whole, and an error keeps
what led to it. Whether the caller's part of the trace is kept is the caller's own decision, by the same
randomness.

A trace's ``sampled`` flag says what was decided here and is not obeyed: whoever sends it may not choose what
the platform pays for, and as each service keeps by its own threshold, weights are right without it. In front
of the exporter's processor::

    guard = Guard(spans_per_second, allowed)
    provider = TracerProvider(sampler=GuardSampler(guard, fragments := Fragments()))
    provider.add_span_processor(GuardProcessor(guard, fragments, BatchSpanProcessor(exporter)))
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TypeAlias

from kilo.extras import requires
from kilo.observe.sampling import probability
from kilo.observe.sampling.allowance import Allowance
from kilo.observe.sampling.guard import UNKNOWN, Guard

with requires("otel"):
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
    from opentelemetry.trace import (
        INVALID_SPAN_CONTEXT,
        Link,
        SpanContext,
        SpanKind,
        StatusCode,
        TraceFlags,
        TraceState,
        get_current_span,
    )
    from opentelemetry.util.types import Attributes

TENANT = "kilo.tenant"
"""The attribute of a fragment's first span that says whose it is."""
REASON = "kilo.sampling"
"""The attribute that says why a span was kept that its threshold would have dropped."""
FRAGMENTS = 4096
"""Traces that are held at once; the oldest is settled when there are more."""
FRAGMENT_SPANS = 128
"""Ended spans of one trace that are held; further ones are decided by themselves."""
SLOW_SECONDS = 1.0

# Looked up once: an attribute of an enumeration costs as much as a call.
_RECORD_ONLY, _RECORD_AND_SAMPLE = Decision.RECORD_ONLY, Decision.RECORD_AND_SAMPLE
_RANDOM_BITS = probability.SPACE - 1

_logger = logging.getLogger(__name__)


class _Fragment:
    """The spans of one trace in this process, from the second on."""

    __slots__ = ("allowance", "failed", "open", "spans", "threshold")

    def __init__(self, allowance: Allowance, threshold: int) -> None:
        self.allowance, self.threshold = allowance, threshold
        self.open = 1
        self.failed: str | None = None
        self.spans: list[ReadableSpan] = []


_Open: TypeAlias = "Allowance | tuple[Allowance, int, bool] | _Fragment"


class Fragments:
    """What sampler and processor know together: what is open by trace, a bounded number of them.

    Most traces are one span here. For those the allowance is all there is to know, and where the span began
    under a threshold this too, and whether that drops it.
    """

    def __init__(self) -> None:
        self.by_trace: dict[int, _Open] = {}
        self.lock = threading.Lock()

    def pop_oldest(self) -> _Open | None:
        """Take out what began first; with the lock held."""
        oldest = next(iter(self.by_trace), None)
        return None if oldest is None else self.by_trace.pop(oldest, None)


class GuardSampler(Sampler):
    """Marks what passes its tenant's threshold, and records the rest until it is known whether it failed."""

    def __init__(self, guard: Guard, fragments: Fragments) -> None:
        self._guard, self._fragments = guard, fragments
        self._tenants, self._by_trace = guard.tenants, fragments.by_trace
        # Thresholds change once a second and are shared by many spans.
        self._states: dict[int, TraceState] = {}

    def should_sample(  # noqa: PLR0917  as the SDK has it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide as the SDK asks when a span starts."""
        try:
            known = self._by_trace.get(trace_id)
            if known is None:
                # What almost every span is: the first of its trace here. No call more than needed.
                tenant = attributes.get(TENANT) if attributes else None
                if type(tenant) is not str:
                    tenant = UNKNOWN
                own = self._tenants.get(tenant) or self._guard.allowance(tenant)
                threshold = self._guard.threshold(own, name) if own.limited else 0
                if len(self._by_trace) >= 2 * FRAGMENTS:
                    self._forget_oldest()
                self._by_trace[trace_id] = own
            else:
                own = None
                threshold = self._join(trace_id, known, name)
            # An empty context has no parent, and none means the current one.
            if parent_context is None or parent_context:
                given = get_current_span(parent_context).get_span_context().trace_state
            else:
                given = None
            entry = given.get(probability.KEY) if given else None
            if threshold:
                random = probability.randomness_of(trace_id, entry) if entry else trace_id & _RANDOM_BITS
                if own is not None:
                    self._by_trace[trace_id] = (own, threshold, random < threshold)
                if random < threshold:
                    return SamplingResult(_RECORD_ONLY, attributes, given)
            if given:
                state = _with_threshold(given, threshold, entry)
            else:
                state = self._states.get(threshold) or self._state(threshold)
        except Exception:
            self._guard.fail()
            _logger.exception("a span is dropped, since deciding about it failed")
            return SamplingResult(Decision.DROP)
        return SamplingResult(_RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        """Name the sampler."""
        return "KiloSamplingGuard"

    def _forget_oldest(self) -> None:
        """Make room: nothing ends, so that nothing is settled, and what is oldest was left open."""
        with self._fragments.lock:
            self._fragments.pop_oldest()
        self._guard.fail()

    def _join(self, trace_id: int, known: _Open, name: str) -> int:
        """Count one span more of a trace that is open here, and give its threshold."""
        with self._fragments.lock:
            fragment = self._by_trace[trace_id] = _fragment_of(known)
            fragment.open += 1
        # A child is kept only where what it is part of is.
        return max(fragment.threshold, self._guard.threshold(fragment.allowance, name))

    def _state(self, threshold: int) -> TraceState:
        if len(self._states) > 1000:
            self._states.clear()
        state = TraceState([(probability.KEY, probability.entry_with(threshold, None))])
        self._states[threshold] = state
        return state


class GuardProcessor(SpanProcessor):
    """Hands on what the guard keeps of the spans that ended."""

    def __init__(
        self, guard: Guard, fragments: Fragments, following: SpanProcessor, slow_seconds: float = SLOW_SECONDS
    ) -> None:
        self._guard, self._fragments, self._following = guard, fragments, following
        self._lock, self._by_trace, self._allowed = guard.lock, fragments.by_trace, guard.allowed
        # Nothing is done when a span starts: the SDK may call what follows at once.
        self.on_start = following.on_start
        self._slow_ns = int(slow_seconds * 1e9)

    def on_end(self, span: ReadableSpan) -> None:
        """Take one span that has ended, and settle its fragment if it was the last."""
        try:
            trace_id = (span.context or INVALID_SPAN_CONTEXT).trace_id
            known = self._by_trace.get(trace_id)
            # First what almost every span is: alone here, of a tenant far below its allowance or far above.
            if type(known) is Allowance:
                del self._by_trace[trace_id]
                with self._lock:
                    calm = known.calm(span.name)
                if calm:
                    self._following.on_end(span)
                    return
            elif type(known) is tuple:
                del self._by_trace[trace_id]
                own, _, dropped = known
                if dropped and self._why_failed(span) is None:
                    name = span.name
                    with self._lock:
                        counted = name not in self._allowed and own.count_dropped(name)
                    if counted:
                        return
            self._end(span, known, trace_id)
        except Exception:
            self._guard.fail()
            _logger.exception("a span is dropped, since deciding about it failed")

    def shutdown(self) -> None:
        """Settle what is still open, then shut the following processor down."""
        self._settle_all()
        self._following.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the following processor; what is open stays so."""
        return self._following.force_flush(timeout_millis)

    def _why_failed(self, span: ReadableSpan) -> str | None:
        if span.status.status_code is StatusCode.ERROR:
            return "error"
        return "slow" if (span.end_time or 0) - (span.start_time or 0) >= self._slow_ns else None

    def _end(self, span: ReadableSpan, known: _Open | None, trace_id: int) -> None:
        failed = self._why_failed(span)
        if isinstance(known, Allowance):
            self._decide(span, known, failed)
        elif isinstance(known, tuple):
            self._decide(span, known[0], failed)
        elif known is None:
            # Settled before its time, when there were too many.
            tenant = span.attributes.get(TENANT) if span.attributes else None
            self._decide(span, self._guard.allowance(tenant if type(tenant) is str else UNKNOWN), failed)
        else:
            self._end_one_of(known, trace_id, span, failed)

    def _end_one_of(self, fragment: _Fragment, trace_id: int, span: ReadableSpan, failed: str | None) -> None:
        by_trace = self._fragments.by_trace
        ready: Sequence[ReadableSpan] = (span,)
        with self._fragments.lock:
            if failed and fragment.failed != "error":
                fragment.failed = failed
            fragment.open -= 1
            if fragment.open <= 0:
                by_trace.pop(trace_id, None)
                ready = (*fragment.spans, span)
            elif len(fragment.spans) < FRAGMENT_SPANS:
                fragment.spans.append(span)
                if len(by_trace) <= FRAGMENTS:
                    return
                oldest = self._fragments.pop_oldest()
                if not isinstance(oldest, _Fragment):
                    return
                fragment, ready = oldest, oldest.spans
        for each in ready:
            self._decide(each, fragment.allowance, fragment.failed)

    def _settle_all(self) -> None:
        with self._fragments.lock:
            fragments = list(self._fragments.by_trace.values())
            self._fragments.by_trace.clear()
        for fragment in fragments:
            if isinstance(fragment, _Fragment):
                for span in fragment.spans:
                    self._decide(span, fragment.allowance, fragment.failed)

    def _decide(self, span: ReadableSpan, allowance: Allowance, failed: str | None) -> None:
        context = span.context or INVALID_SPAN_CONTEXT
        why = self._guard.offer(
            allowance, span.name, span.attributes, context.trace_flags.sampled, failed is not None
        )
        if why == "share":
            self._following.on_end(span)
        elif why is not None:
            self._following.on_end(_certain(span, context, failed if why == "failed" else why))


def _certain(span: ReadableSpan, context: SpanContext, why: str | None) -> ReadableSpan:
    """The span as one that was kept whatever its randomness: of threshold 0, so of weight 1."""
    given = context.trace_state or TraceState()
    state = _with_threshold(given, 0, given.get(probability.KEY))
    flags = TraceFlags(context.trace_flags | TraceFlags.SAMPLED)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(context.trace_id, context.span_id, context.is_remote, flags, state),
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), REASON: why or ""},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _with_threshold(given: TraceState, threshold: int, entry: str | None) -> TraceState:
    """``given`` with the threshold, in place of its last entry if it has no room (32)."""
    others = [(key, value) for key, value in given.items() if key != probability.KEY]
    return TraceState([(probability.KEY, probability.entry_with(threshold, entry)), *others[:31]])


def _fragment_of(known: _Open) -> _Fragment:
    if isinstance(known, _Fragment):
        return known
    return _Fragment(*known[:2]) if isinstance(known, tuple) else _Fragment(known, 0)
