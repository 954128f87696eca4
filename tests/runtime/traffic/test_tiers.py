"""What a tier has of its own at the gateway: a second try for reads, budgets, ceilings, ejection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from kilo.tenancy import TierName
from kilo.traffic.envoy import render_files
from kilo.traffic.settings import GatewaySettings, TierTraffic, Upstream
from kilo.traffic.validation import render_whole, validate
from tests.runtime.traffic.support import ENVOY, Gateway, UpstreamServer, make_tenant

MakeGateway = Callable[..., Gateway]
STABLE = Upstream(host="ingest.kilo-dev.svc.cluster.local", port=10081)


def clusters(tiers: dict[TierName, TierTraffic]) -> dict[str, Any]:
    tenants = [make_tenant("acme"), make_tenant("initech", tier="bronze")]
    settings = GatewaySettings(stable=STABLE, tiers=tiers)
    validate(render_whole(tenants, settings), ENVOY)
    rendered = json.loads(render_files(tenants, settings)["clusters.json"])["resources"]
    return {cluster["name"]: cluster for cluster in rendered}


def test_a_tier_has_its_own_budget_ceiling_and_ejection_and_others_stay_as_they_are() -> None:
    own = TierTraffic(retry_budget_percent=5, max_concurrent_requests=32, eject_after_failures=7)
    before, after = clusters({}), clusters({"bronze": own})
    assert after["stable-gold"] == before["stable-gold"]
    bronze = after["stable-bronze"]
    (thresholds,) = bronze["circuit_breakers"]["thresholds"]
    assert thresholds["retry_budget"]["budget_percent"] == {"value": 5.0}
    assert thresholds["max_requests"] == 32
    assert bronze["outlier_detection"]["consecutive_5xx"] == 7
    assert "outlier_detection" not in before["stable-bronze"]


def test_a_late_read_is_asked_a_second_time_and_a_write_is_not(
    make_gateway: MakeGateway, stable: UpstreamServer
) -> None:
    gateway = make_gateway(tiers={"gold": TierTraffic(hedge_reads_after_ms=100)}, next=None)
    gateway.start([make_tenant("acme"), make_tenant("initech", tier="bronze", timeout_ms=500)])

    def ask(method: str, tenant: str, key: str) -> int:
        headers = {"x-tenant-id": tenant, "idempotency-key": key, "x-test-slow-tries": "1"}
        return httpx.request(method, f"{gateway.url}/v1/orders", headers=headers, timeout=30).status_code

    assert ask("GET", "acme", "read") == 200
    assert ask("GET", "initech", "bronze") == 504
    stable.release.set()
    assert ask("POST", "acme", "write") == 200
    assert stable.tries == {"read": 2, "bronze": 1, "write": 1}
