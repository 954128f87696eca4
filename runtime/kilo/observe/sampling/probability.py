"""Consistent probability sampling: thresholds, randomness, and how both travel in ``tracestate``.

A trace has 56 random bits, the same for every service that sees it; a span is kept when they are at least its
threshold, and stands for as many spans as the threshold leaves out. So traces that pass the strictest service
on their way are whole, and sums of weights estimate true counts.

Format: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/ and, for the key
``ot``, https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/.
"""

from __future__ import annotations

import re

SPACE = 1 << 56
"""Randomness is below this, and a threshold at most this."""
KEY = "ot"
"""OpenTelemetry's entry of ``tracestate``."""

_LONGEST = 256
_RANDOMNESS = re.compile(r"(?:^|;)rv:([0-9a-f]{14})(?:;|$)")
_THRESHOLD = re.compile(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)")
_ENTRY = re.compile(r"[a-z][a-z0-9]*:[A-Za-z0-9._-]*")


def threshold_of(probability: float) -> int:
    """The threshold that keeps spans with ``probability``, at most 1; nothing passes :data:`SPACE`.

    Of three hexadecimal digits after the leading ones, which is finer than any estimate needs.
    """
    if probability >= 1:
        return 0
    # Rounded up, so that never more is kept than was asked for.
    return SPACE - (round(probability * SPACE) >> 40 << 40) if probability > 0 else SPACE


def probability_of(threshold: int) -> float:
    """Which share of spans passes ``threshold``."""
    return (SPACE - threshold) / SPACE


def encode(threshold: int) -> str:
    """Write a threshold below :data:`SPACE` as ``th`` has it: hexadecimal, without zeros at its end."""
    return f"{threshold:014x}".rstrip("0") or "0"


def randomness_of(trace_id: int, entry: str | None) -> int:
    """The trace's randomness: what ``ot`` says, else the last 56 bits of its id."""
    match = _RANDOMNESS.search(entry) if entry and len(entry) <= _LONGEST else None
    return int(match[1], 16) if match else trace_id & (SPACE - 1)


def threshold_in(entry: str | None) -> int | None:
    """The threshold that ``ot`` says; none where it says none, and a span's weight is therefore unknown."""
    match = _THRESHOLD.search(entry) if entry and len(entry) <= _LONGEST else None
    return int(match[1].ljust(14, "0"), 16) if match else None


def entry_with(threshold: int, entry: str | None) -> str:
    """``ot`` with ``threshold``, and with what else ``entry`` says in the form that the standard has."""
    rest = (entry or "").split(";") if len(entry or "") <= _LONGEST else []
    kept = [part for part in rest if _ENTRY.fullmatch(part) and not part.startswith("th:")]
    return ";".join([f"th:{encode(threshold)}", *kept])
