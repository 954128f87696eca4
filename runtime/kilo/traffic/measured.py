"""What tenants' requests took, asked of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from kilo.errors import Unreachable
from kilo.tenancy import TierName
from kilo.traffic.tuning import Latency

_SERIES = "envoy_gateway_request_duration_milliseconds"
_TIMEOUT_SECONDS = 60


def read_latencies(prometheus_url: str, tiers: Mapping[str, TierName], days: int) -> list[Latency]:
    """Read requests and 99th percentile of each tenant's stable version over the last ``days``.

    Args:
        prometheus_url: of its API, without a path of its own.
        tiers: of the tenants, by id.
        days: how far to look back.

    Raises:
        Unreachable: nothing answers there, or it is no Prometheus.
    """
    stable = f'{{version="stable"}}[{days}d]'
    counts = _query(prometheus_url, f"sum by (tenant) (increase({_SERIES}_count{stable}))")
    p99s = _query(
        prometheus_url,
        f"histogram_quantile(0.99, sum by (tenant, le) (increase({_SERIES}_bucket{stable})))",
    )
    return [
        Latency(tenant, tier, counts.get(tenant, 0.0), p99s.get(tenant, float("nan")))
        for tenant, tier in tiers.items()
    ]


def _query(prometheus_url: str, query: str) -> dict[str, float]:
    """Values by tenant."""
    try:
        url = f"{prometheus_url.rstrip('/')}/api/v1/query"
        answer = httpx.post(url, data={"query": query}, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        series: list[Any] = answer.json()["data"]["result"]
        return {str(each["metric"].get("tenant", "")): float(each["value"][1]) for each in series}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, IndexError) as error:
        msg = f"{prometheus_url}: no Prometheus answers ({type(error).__name__}); name it with --prometheus"
        raise Unreachable(msg) from error
