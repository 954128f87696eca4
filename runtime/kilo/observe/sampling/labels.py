"""A budget of values for each label of each metric: beyond it, values become ``other`` and are counted.

What a label may hold is bounded by code, or so it was meant: an event's kind comes from whoever sends it. The
first values keep their series, since a series that changes its name is none; the tenant's label has the
budget of all tenants that one stage may have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast

from prometheus_client.metrics import MetricWrapperBase

OTHER = "other"
VALUES = 200
"""Values of one label of one metric."""
TENANTS = 10_000
LONGEST = 128
"""Characters of a value; a longer one is ``other`` too."""


class LabelBudget:
    """Which values of a metric's labels have a series of their own. Safe for several threads."""

    def __init__(self, names: Sequence[str], folded: Callable[[str], None]) -> None:
        """``folded`` is told the label of each value that became ``other``."""
        self._names, self._folded = tuple(names), folded
        self._seen: Mapping[str, set[str]] = {name: set() for name in names}
        self._lock = threading.Lock()

    def fold(self, values: Sequence[str]) -> tuple[str, ...]:
        """Give ``values``, in the order of the labels' names, as they may be exported."""
        return tuple(
            value if self._has_room(name, value) else OTHER
            for name, value in zip(self._names, values, strict=True)
        )

    def _has_room(self, name: str, value: str) -> bool:
        seen = self._seen[name]
        if value in seen:
            return True
        with self._lock:
            if len(value) <= LONGEST and len(seen) < (TENANTS if name == "tenant" else VALUES):
                seen.add(value)
                return True
        self._folded(name)
        return False


M = TypeVar("M", bound=MetricWrapperBase)


def bounded(
    kind: type[M],
    name: str,
    text: str,
    labels: Sequence[str],
    folded: Callable[[str, str], None],
    **more: Any,
) -> M:
    """Make a metric of ``prometheus_client`` whose labels each have their budget.

    Args:
        kind: Counter, Gauge or Histogram.
        name: the metric's.
        text: its help.
        labels: its labels' names.
        folded: told the metric and the label of each sample whose value became ``other``.
        more: what else ``kind`` takes.
    """
    if not labels:
        return kind(name, text, labels, **more)
    made = _bounded(kind)(name, text, labels, **more)
    made.budget = LabelBudget(labels, lambda label: folded(name, label))
    return cast("M", made)


@cache
def _bounded(kind: type[MetricWrapperBase]) -> Any:
    """``kind`` with a budget. A child of it is of the same class and has no labels left to ask for."""

    class Bounded(kind):
        budget: LabelBudget

        def labels(self, *labelvalues: object, **labelkwargs: object) -> Any:
            given = labelvalues or tuple(labelkwargs[name] for name in self._labelnames)
            values = tuple(map(str, given))
            # What is exported already needs no budget: most calls end here.
            if values not in self._metrics:
                values = self.budget.fold(values)
            return super().labels(*values)

    return Bounded
