"""Prometheus' HTTP API, as far as the command line and its pages ask it.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from kilo.errors import BadInput, Unreachable

_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A series' labels, without its name where a function took it, and its value."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A Prometheus by URL. A context manager.

    Raises:
        Unreachable: it does not answer.
        BadInput: it refuses the query.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=_SECONDS, trust_env=False)

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def query(self, query: str) -> list[Sample]:
        """The samples of an instant query, now."""
        found = self.get("query", {"query": query})
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """``data`` of any of the API's answers; ``path`` is what follows ``/api/v1/``."""
        try:
            answer = self._client.get(f"/api/v1/{path}", params=dict(parameters or {}))
        except httpx.HTTPError as error:
            msg = f"Prometheus at {self.url} does not answer ({type(error).__name__}); `kilo status` shows it"
            raise Unreachable(msg) from error
        try:
            document = answer.json()
        except ValueError:
            msg = f"{self.url}: answered {answer.status_code} and no JSON; is that a Prometheus?"
            raise Unreachable(msg) from None
        if document.get("status") != "success":
            msg = f"Prometheus refuses the query: {document.get('error')}"
            raise BadInput(msg)
        return document["data"]
