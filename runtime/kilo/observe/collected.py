"""Spans that the collector kept, from the files of JSON lines that it writes where a stage names no backend.

A line is an ``ExportTraceServiceRequest`` of OTLP in JSON
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). Lines are what processes sent: names are
shown without what steers a terminal, and a line that is torn, since it is being written, is left out.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kilo.observe.sampling import probability

FILES_VARIABLE = "KILO_TRACES"
"""The collector's files, as a pattern; a dev stage with ``monitoring.traces`` sets it."""
REASON = "kilo.sampling"
_MOST_SPANS = 500
_FAILED = 2
"""``STATUS_CODE_ERROR``."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span that was kept."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    start: datetime
    seconds: float
    failed: bool
    tenant: str | None
    reason: str
    """Why it was kept that its threshold would have dropped; empty where it passed its threshold."""
    weight: float | None
    """How many spans it stands for; ``None`` where it does not say."""


def read_spans(trace_ids: Collection[str], pattern: str | None = None) -> list[Span]:
    """The spans of some traces, oldest first, at most 500.

    Args:
        trace_ids: of 32 lower-case hexadecimal digits.
        pattern: of file names; that of :data:`FILES_VARIABLE` without it, and no files where it is not set.
    """
    wanted = [trace_id.encode() for trace_id in trace_ids]
    found: list[Span] = []
    for file in sorted(glob.glob(pattern or os.environ.get(FILES_VARIABLE) or "")):
        found += (span for span in _spans_in(Path(file), wanted) if span.trace_id in trace_ids)
    found.sort(key=lambda span: (span.start, span.span_id))
    return found[:_MOST_SPANS]


def _spans_in(file: Path, wanted: Collection[bytes]) -> Iterator[Span]:
    try:
        with file.open("rb") as lines:
            for line in lines:
                # Looking for an id is far cheaper than reading JSON.
                if any(trace_id in line for trace_id in wanted):
                    yield from _spans_of(line)
    except OSError:
        # Rotated away, or the pod is gone.
        return


def _spans_of(line: bytes) -> Iterator[Span]:
    try:
        for resource in json.loads(line)["resourceSpans"]:
            service = _attributes(resource.get("resource", {})).get("service.name", "")
            for scope in resource.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    yield _span(service, span)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return


def _span(service: str, span: Mapping[str, Any]) -> Span:
    begun, ended = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    attributes = _attributes(span)
    entries = dict(entry.split("=", 1) for entry in span.get("traceState", "").split(",") if "=" in entry)
    threshold = probability.threshold_in(entries.get(probability.KEY))
    return Span(
        trace_id=span["traceId"],
        span_id=_plain(span["spanId"]),
        parent_id=_plain(span.get("parentSpanId", "")),
        service=_plain(service),
        name=_plain(span["name"]),
        start=datetime.fromtimestamp(begun / 1e9, UTC),
        seconds=(ended - begun) / 1e9,
        failed=span.get("status", {}).get("code") in {_FAILED, "STATUS_CODE_ERROR"},
        tenant=_plain(attributes.get("kilo.tenant", "")) or None,
        reason=_plain(attributes.get(REASON, "")),
        weight=1 / probability.probability_of(threshold)
        if threshold is not None and threshold < probability.SPACE
        else None,
    )


def _attributes(holder: Mapping[str, Any]) -> dict[str, str]:
    """Its attributes that are text."""
    return {
        each["key"]: value["stringValue"]
        for each in holder.get("attributes", ())
        if "stringValue" in (value := each.get("value", {}))
    }


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:200])
