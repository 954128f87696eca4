"""Which attribute's distinct values grew: a bounded sketch for each attribute of a tenant's spans.

HyperLogLog from Apache DataSketches, 64 registers each, so that a million values cost what ten do. An
attribute that was always different (an event's fingerprint) is not the one that grew: each is compared with
what it was before. Only names of attributes are ever given out; values are hashed into the sketch and kept
nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilo.extras import requires

with requires("otel"):
    from datasketches import hll_sketch  # pyright: ignore[reportAttributeAccessIssue]

ATTRIBUTES = 24
"""Attributes of one tenant that are looked at; of further ones only that they are there is known."""
NAME_LENGTH = 64
VOLUME = "volume"
"""Said where no attribute grew: there are just more spans."""
TOO_MANY = "too-many-attributes"
SPAN_NAME = "span-name"
"""The attribute that stands for the span's own name."""

_SET_APART = frozenset({"kilo.tenant", "kilo.fingerprint"})
"""What is the tenant itself, or different for every event by its meaning."""
_LG_REGISTERS = 6
_LEAST_SAMPLES = 32
_GROWN = 0.2


class _Values:
    __slots__ = ("count", "sketch")

    def __init__(self) -> None:
        self.sketch, self.count = hll_sketch(_LG_REGISTERS), 0

    def distinct_ratio(self) -> float:
        """Distinct values by values seen, with at least as many taken as seen as make it mean something."""
        return min(1.0, self.sketch.get_estimate() / max(self.count, _LEAST_SAMPLES))


class Attributes:
    """The attributes of one tenant's spans: as they usually are, and as they are now."""

    __slots__ = ("_now", "_over", "_usual")

    def __init__(self) -> None:
        self._usual: dict[str, float] = {}
        self._now: dict[str, _Values] = {}
        self._over = False

    def see(self, name: str, attributes: Mapping[str, Any] | None) -> None:
        """Look at one span."""
        self._see(SPAN_NAME, name)
        for key, value in (attributes or {}).items():
            if key not in _SET_APART:
                self._see(key[:NAME_LENGTH], value)

    def _see(self, key: str, value: object) -> None:
        values = self._now.get(key)
        if values is None:
            if len(self._now) >= ATTRIBUTES:
                self._over = True
                return
            values = self._now[key] = _Values()
        values.count += 1
        # Long values are as different as their beginning and their length: hashing must stay cheap.
        text = value if isinstance(value, str) else repr(value)
        values.sketch.update(text if len(text) <= 256 else f"{text[:256]}{len(text)}")

    def become_usual(self) -> None:
        """Take what was seen as the usual, once it was enough, and begin anew."""
        if (seen := self._now.get(SPAN_NAME)) is None or seen.count < 2 * _LEAST_SAMPLES:
            return
        usual = {key: v.distinct_ratio() for key, v in self._now.items() if v.count >= _LEAST_SAMPLES}
        merged = {**self._usual, **usual}
        self._usual = dict(list(merged.items())[-ATTRIBUTES:])
        self._now, self._over = {}, False

    def grown(self) -> str:
        """The name of the attribute whose distinct values grew most, or why there is none."""
        if self._over:
            return TOO_MANY
        growth = {key: v.distinct_ratio() - self._usual.get(key, 0.0) for key, v in self._now.items()}
        most = max(growth, key=lambda key: growth[key], default=VOLUME)
        return most if growth.get(most, 0.0) >= _GROWN else VOLUME
