"""Prometheus' HTTP API, as far as commands, pages and the gate of ramps ask it: one client for all of them.

What is missing is a value and no error: an instant query has no sample of a series that is not there,
a line has ``None`` where nothing was, and the samples of a :class:`Series` have the times of their scrapes,
from which a reader tells a gap or an old figure from a zero.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from kilo.errors import BadInput, Unreachable

_SECONDS = 20.0

Samples = Sequence[tuple[float, float]]
"""Time and value of each, oldest first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A series' labels, without its name where a function took it, and its value now."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one series as they were scraped; those that are no number are left out."""

    labels: Mapping[str, str]
    samples: Samples

    def age(self, now: float) -> float | None:
        """Seconds since its newest sample; ``None`` where it has none."""
        return now - self.samples[-1][0] if self.samples else None


@dataclass(frozen=True, slots=True)
class Line:
    """What a query gives at each of some times; ``None`` where it gives nothing, or no number."""

    labels: Mapping[str, str]
    values: Sequence[float | None]


class Prometheus:
    """A Prometheus by URL. A context manager; safe for several threads.

    Args:
        url: of its API, without a path.
        seconds: that an answer may take.
        advice: what to do when it does not answer.

    Raises:
        Unreachable: it does not answer.
        BadInput: it refuses the query.
    """

    def __init__(
        self, url: str, *, seconds: float = _SECONDS, advice: str = "`kilo status` shows it"
    ) -> None:
        self.url = url.rstrip("/")
        self._advice = f"; {advice}" if advice else ""
        self._client = httpx.Client(timeout=seconds, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def query(self, query: str, at: float | None = None) -> list[Sample]:
        """The samples of an instant query, now or ``at`` a time in seconds since the epoch."""
        found = self.get("query", {"query": query} if at is None else {"query": query, "time": str(at)})
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def series(self, query: str) -> list[Series]:
        """The series of a selector: with a range, all samples in it; without one, the newest of each."""
        found = self.get("query", {"query": query})
        return [
            Series(each["metric"], _samples(each.get("values") or [each["value"]]))
            for each in found["result"]
        ]

    def lines(self, query: str, times: Sequence[int]) -> list[Line]:
        """What a query gave at each of ``times``, which are as far apart as the first two."""
        start, step = times[0], times[1] - times[0]
        found = self.get(
            "query_range", {"query": query, "start": str(start), "end": str(times[-1]), "step": str(step)}
        )
        lines: list[Line] = []
        for series in found["result"]:
            values: list[float | None] = [None] * len(times)
            for at, value in _samples(series["values"]):
                values[(int(at) - start) // step] = value
            lines.append(Line(series["metric"], values))
        return lines

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """``data`` of any of the API's answers; ``path`` is what follows ``/api/v1/``."""
        try:
            answer = self._client.get(f"{self.url}/api/v1/{path}", params=dict(parameters or {}))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"Prometheus at {self.url} does not answer ({type(error).__name__}){self._advice}"
            raise Unreachable(msg) from error
        try:
            document = answer.json()
            if document["status"] == "success":
                return document["data"]
            refused = document["error"]
        except (ValueError, KeyError, TypeError):
            msg = f"{self.url}: answered {answer.status_code} and nothing of Prometheus'{self._advice}"
            raise Unreachable(msg) from None
        msg = f"Prometheus refuses the query: {refused}"
        raise BadInput(msg)


def _samples(values: Sequence[tuple[Any, Any]]) -> Samples:
    samples = [(float(moment), float(value)) for moment, value in values]
    return [sample for sample in samples if all(map(math.isfinite, sample))]
