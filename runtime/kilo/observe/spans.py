"""Spans of the platform's own processes, by OpenTelemetry's API.

Without an SDK in the process a span costs nothing and its context is made here, so that an event belongs
to a trace from the request on, whether or not anything is exported on this machine.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from kilo.observe.logs import around
from kilo.observe.tracing import TraceContext, new_trace, parse_traceparent

_tracer = trace.get_tracer("kilo")


@contextmanager
def span(
    name: str,
    parent: str | None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    link: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Generator[str]:
    """A span around a block; yields its own ``traceparent``.

    Args:
        name: what is done, without anything of the single event.
        parent: the ``traceparent`` that caused it, none to start a trace.
        kind: server, consumer, …
        link: the ``traceparent`` of a span that it has to do with and is no child of: a replay's original.
        attributes: of the span.
    """
    known = parse_traceparent(parent)
    if isinstance(_tracer, trace.ProxyTracer) and not exporting():
        here = known.child() if known else new_trace()
        with _logged(here.trace_id, attributes):
            yield str(here)
        return
    related = parse_traceparent(link)
    context = trace.set_span_in_context(NonRecordingSpan(_remote(known))) if known else Context()
    links = [Link(_remote(related))] if related else None
    with _tracer.start_as_current_span(name, context, kind, attributes, links) as current:
        made = current.get_span_context()
        if current.is_recording():
            here = TraceContext(
                trace.format_trace_id(made.trace_id),
                trace.format_span_id(made.span_id),
                made.trace_flags.sampled,
            )
        else:
            here = known.child() if known else new_trace()
        with _logged(here.trace_id, attributes):
            yield str(here)


@contextmanager
def _logged(trace_id: str, attributes: Mapping[str, str] | None) -> Generator[None]:
    """Let log lines say which work they belong to."""
    fields = {"trace_id": trace_id}
    for name in ("tenant", "fingerprint"):
        if value := (attributes or {}).get(f"kilo.{name}"):
            fields[name] = value
    token = around.set({**around.get(), **fields})
    try:
        yield
    finally:
        around.reset(token)


def exporting() -> bool:
    """Whether this process has an SDK that does something with spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def _remote(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=flags)
