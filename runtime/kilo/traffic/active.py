"""What a running gateway has in force, read back from Envoy's own ``config_dump``.

What was rendered is a wish; Envoy refuses an invalid file and goes on with the last good one. So
whoever has to know (a ramp, a person) asks the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from kilo.errors import Unreachable
from kilo.traffic.routes import ROUTES, UNKNOWN
from kilo.traffic.xds import METADATA

_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ActiveTenant:
    """One tenant's settings as the gateway applies them."""

    id: str
    tier: str
    next_weight_percent: int
    timeout_ms: int
    retries: int
    requests_per_second: float
    """Of this gateway alone: its share of the tenant's limit."""
    burst: int


def read_active(operations_url: str) -> list[ActiveTenant]:
    """Read every tenant's active settings from the gateway's operations listener, by name.

    Raises:
        Unreachable: nothing answers there, or it is not a gateway of this kind.
    """
    try:
        with httpx.Client(base_url=operations_url, timeout=_TIMEOUT_SECONDS) as http:
            routes = _configs(http, "dynamic_route_configs")
            filters = _configs(http, "ecds_filters")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        msg = f"{operations_url}: no gateway answers /config_dump ({error}); name its operations listener"
        raise Unreachable(msg) from error
    buckets = _buckets(filters)
    try:
        (configuration,) = (
            entry["route_config"] for entry in routes if entry["route_config"]["name"] == ROUTES
        )
        tenants = [
            _tenant(name, host["routes"][-1], buckets)
            for host in configuration["virtual_hosts"]
            if host["name"] != UNKNOWN
            for name in host["domains"]
        ]
    except (KeyError, ValueError) as error:
        msg = f"{operations_url}: the gateway has no tenants' routes in force; its log says why"
        raise Unreachable(msg) from error
    return sorted(tenants, key=lambda tenant: tenant.id)


def _configs(http: httpx.Client, resource: str) -> list[dict[str, Any]]:
    answer = http.get("/config_dump", params={"resource": resource})
    answer.raise_for_status()
    return answer.json().get("configs", [])


def _buckets(filters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        descriptor["entries"][0]["value"]: descriptor["token_bucket"]
        for entry in filters
        for descriptor in entry["ecds_filter"]["typed_config"].get("descriptors", [])
    }


def _tenant(name: str, route: dict[str, Any], buckets: dict[str, dict[str, Any]]) -> ActiveTenant:
    action, said = route["route"], route["metadata"]["filter_metadata"][METADATA]
    bucket = buckets[said["limit"]]
    # Protobuf's JSON leaves a zero out.
    weights = {
        entry["name"].split("-")[0]: entry.get("weight", 0)
        for entry in action["weighted_clusters"]["clusters"]
    }
    return ActiveTenant(
        id=name,
        tier=said["tier"],
        next_weight_percent=weights.get("next", 0),
        timeout_ms=round(_seconds(action["timeout"]) * 1000),
        retries=action.get("retry_policy", {}).get("num_retries", 0),
        requests_per_second=bucket["tokens_per_fill"] / _seconds(bucket["fill_interval"]),
        burst=bucket["max_tokens"],
    )


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
