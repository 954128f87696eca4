"""Whose series a query is about: one stage's, where several share a Prometheus.

Each selector of a query gets the stage's namespace, which every scraped series has and every record keeps;
without it, ``absent()`` of one stage would be answered by another's process, and both would record a tenant
of the same name as one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from kilo.observe import foreign, metrics

NAMESPACE_VARIABLE = 'namespace="$namespace"'
"""The matcher of a dashboard, on which a viewer chooses the stage."""


def in_namespace(namespace: str) -> str:
    """The matcher of a stage's series."""
    return f'namespace="{namespace}"'


def scoped(query: str, matcher: str, recorded: Collection[str]) -> str:
    """Narrow every selector of ``query`` by ``matcher``.

    Args:
        query: PromQL over declared metrics and records alone.
        matcher: such as ``namespace="kilo"``.
        recorded: the names of all records.
    """

    def narrow(found: re.Match[str]) -> str:
        inside = (found["inside"] or "").strip()
        return f"{found['name']}{{{matcher}{', ' if inside else ''}{inside}}}"

    return _selectors(frozenset(recorded)).sub(narrow, query)


@cache
def _selectors(recorded: frozenset[str]) -> re.Pattern[str]:
    names = {series for metric in metrics.CATALOGUE.values() for series in metric.series()}
    names |= {*foreign.FOREIGN, *recorded}
    # The longest first: one name may begin another.
    listed = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(
        rf"(?<![a-zA-Z0-9_:.$])(?P<name>{listed})(?![a-zA-Z0-9_:(])(?:\s*\{{(?P<inside>[^}}]*)\}})?"
    )
