"""Trace context that travels with an event, and the export of spans.

An event keeps the ``traceparent`` of the request that made it, through outbox, bus, dead letter and
replay. This module reads and writes that header without OpenTelemetry's SDK, so that services that
export no spans need not install it. Format: W3C Trace Context, level 1,
https://www.w3.org/TR/trace-context-1/#traceparent-header.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, replace

from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The standard variable that names the collector; spans are exported only where it is set."""

SHARE_VARIABLE = "KILO_SPAN_SHARE"
"""This copy's part of each tenant's allowance of spans, above 0 and at most 1."""

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that something belongs to, and the span that caused it."""

    trace_id: str
    """32 lower-case hexadecimal digits, not all zero."""
    span_id: str
    """16 lower-case hexadecimal digits, not all zero."""
    sampled: bool = True

    def __str__(self) -> str:
        """Write the ``traceparent`` header, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"

    def child(self) -> TraceContext:
        """Start a span of the same trace."""
        return replace(self, span_id=_random_id(8))


def new_trace(*, sampled: bool = True) -> TraceContext:
    """Start a trace."""
    return TraceContext(_random_id(16), _random_id(8), sampled)


def parse_traceparent(header: str | None) -> TraceContext | None:
    """Read a ``traceparent`` header; ``None`` where there is none or an invalid one.

    The specification has a receiver ignore an invalid header and start a trace of its own, so this
    raises nothing.
    """
    match = _HEADER.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def export_spans(service: str, outputs: StackOutputs | None = None) -> bool:
    """Send this process's OpenTelemetry spans to the collector; tell whether there is one.

    What is sent passes the sampling guard, with the allowances of the stage's tenants and this copy's part of
    them (:data:`SHARE_VARIABLE`).

    Args:
        service: the process's name in traces.
        outputs: the stage's; read when they are not given.

    Raises:
        BadInput: a collector is named, but OpenTelemetry's SDK is not installed.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return False
    try:
        from opentelemetry import trace  # noqa: PLC0415 - the SDK is an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from prometheus_client import REGISTRY  # noqa: PLC0415

        from kilo.observe.sampling.exporter import GuardMetrics  # noqa: PLC0415
        from kilo.observe.sampling.guard import Guard  # noqa: PLC0415
        from kilo.observe.sampling.sdk import Fragments, GuardProcessor, GuardSampler  # noqa: PLC0415
    except ImportError as error:
        msg = f"{ENDPOINT_VARIABLE} is set, but {error.name} is not installed; install kilo[otel] or unset it"
        raise BadInput(msg) from error
    known = outputs or load_outputs()
    budgets = {tenant: float(each.spans_per_second) for tenant, each in known.tenants.items()}
    guard, fragments = Guard(budgets, known.monitoring.key_spans, _share()), Fragments()
    provider = TracerProvider(
        sampler=GuardSampler(guard, fragments), resource=Resource.create({"service.name": service})
    )
    exporting = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(GuardProcessor(guard, fragments, exporting))
    trace.set_tracer_provider(provider)
    REGISTRY.register(GuardMetrics(guard))
    return True


def _share() -> float:
    text = os.environ.get(SHARE_VARIABLE) or "1"
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        msg = f"{SHARE_VARIABLE}: {text!r} is no part of a whole; it takes a number above 0, at most 1"
        raise BadInput(msg)
    return share


def _random_id(size: int) -> str:
    # All zeros is invalid, and as likely as guessing the identifier.
    return secrets.token_hex(size)
