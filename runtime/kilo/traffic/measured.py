"""What tenants' requests took, asked of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from kilo.observe.prometheus import Prometheus
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
    advice = "name another with --prometheus"
    with Prometheus(prometheus_url, seconds=_TIMEOUT_SECONDS, advice=advice) as prometheus:
        counts, p99s = (
            {each.labels.get("tenant", ""): each.value for each in prometheus.query(query)}
            for query in (
                f"sum by (tenant) (increase({_SERIES}_count{stable}))",
                f"histogram_quantile(0.99, sum by (tenant, le) (increase({_SERIES}_bucket{stable})))",
            )
        )
    return [
        Latency(tenant, tier, counts.get(tenant, 0.0), p99s.get(tenant, float("nan")))
        for tenant, tier in tiers.items()
    ]
