"""What every gateway says is in force: the step, the one before, or nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from kilo.tenancy import RampWeight
from kilo.traffic.features import SHADOW, next_cluster
from kilo.traffic.xds import METADATA

_TIMEOUT_SECONDS = 2.0
_REJECTED = re.compile(
    r"^envoy_(?:http_rds|cluster_manager_cds)_update_rejected(?:\{[^}]*\})? (\d+)", re.MULTILINE
)


class Answer(StrEnum):
    """What a gateway says of a step."""

    ACK = "in force"
    NACK = "refused"
    NOT_YET = "not yet"
    SILENT = "no answer"


Weights = Mapping[tuple[str, str], RampWeight]
"""By tenant and feature."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One gateway's own account.

    Attributes:
        url: of its operations listener.
        weights: what is in force there, None where it does not say.
        rejected: how many files it has refused since it started.
    """

    url: str
    weights: Weights | None = None
    rejected: int = 0

    def answer(self, wanted: Weights, rejected_before: int | None) -> Answer:
        """Whether the wanted weights are in force here.

        Args:
            wanted: what should be in force; None-like absence (no entry) is written as weight 0.
            rejected_before: how many files it had refused before the step, None when that is not known.
        """
        if self.weights is None:
            return Answer.SILENT
        if all(self.weights.get(key, 0) == weight for key, weight in wanted.items()):
            return Answer.ACK
        # Counters begin anew with the process.
        if rejected_before is not None and self.rejected > rejected_before:
            return Answer.NACK
        return Answer.NOT_YET


async def ask(urls: Sequence[str]) -> list[Replica]:
    """Ask every gateway, side by side; one that does not answer is in the list all the same."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as http:
        return await asyncio.gather(*(_ask(http, url) for url in urls))


async def _ask(http: httpx.AsyncClient, url: str) -> Replica:
    try:
        dump = await http.get(f"{url}/config_dump", params={"resource": "dynamic_route_configs"})
        metrics = await http.get(f"{url}/metrics")
        dump.raise_for_status()
        metrics.raise_for_status()
        return Replica(url, weights_in(dump.json()), sum(map(int, _REJECTED.findall(metrics.text))))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError):
        return Replica(url)


def weights_in(dump: Mapping[str, Any]) -> dict[tuple[str, str], RampWeight]:
    """Read every tenant's weights of features from a gateway's dump of its routes."""
    found: dict[tuple[str, str], RampWeight] = {}
    for entry in dump.get("configs", ()):
        for host in entry["route_config"]["virtual_hosts"]:
            # Tenants with the same routes share a virtual host: its domains are their names.
            for route in host.get("routes", ()):
                said = route.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
                if "feature" in said:
                    weight = _weight(route["route"], said["feature"], said["tier"])
                    for tenant in host["domains"]:
                        found.setdefault((tenant, said["feature"]), weight)
    return found


def _weight(action: Mapping[str, Any], feature: str, tier: str) -> RampWeight:
    if action.get("request_mirror_policies"):
        return SHADOW
    # Protobuf's JSON leaves a zero out.
    weights = {each["name"]: each.get("weight", 0) for each in action["weighted_clusters"]["clusters"]}
    return weights.get(next_cluster(feature, tier), 0)
