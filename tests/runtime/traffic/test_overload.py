"""A gateway that is short of memory: whom it refuses, how, and that each refusal is its tenant's."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from kilo.traffic.identity import Identity
from tests.patience import until
from tests.runtime.traffic.support import Gateway, UpstreamServer, make_tenant
from tests.runtime.traffic.tokens import AUDIENCE, ISSUER, Issuer

MakeGateway = Callable[..., Gateway]
FULL_BYTES = 5_000_000
"""Less than Envoy takes with nothing to do: its heap is far above all that is configured for it."""


def full(bootstrap: dict[str, Any]) -> None:
    heap = bootstrap["overload_manager"]["resource_monitors"][0]
    assert heap["name"] == "envoy.resource_monitors.fixed_heap"
    heap["typed_config"]["max_heap_size_bytes"] = FULL_BYTES


def ask(gateway: Gateway, headers: dict[str, str], path: str = "/v1/events") -> httpx.Response:
    return httpx.post(f"{gateway.url}{path}", headers=headers, timeout=30)


def overloaded(gateway: Gateway, headers: dict[str, str]) -> None:
    """Wait until the gateway has looked at its heap."""
    until(lambda: ask(gateway, headers).status_code == 429, "it refuses")


def refused(gateway: Gateway) -> Counter[str]:
    """How many the gateway says it has refused for its memory, by tenant."""
    found = re.findall(
        r'^envoy_gateway_refused_total\{tenant="([^"]*)",reason="overload"\} (\d+)', gateway.metrics(), re.M
    )
    return Counter({tenant: int(count) for tenant, count in found})


def test_each_refusal_is_counted_for_its_tenant_and_says_when_to_come_back(
    make_gateway: MakeGateway, stable: UpstreamServer, tmp_path: Path
) -> None:
    log = tmp_path / "usage.log"
    gateway = make_gateway(usage_log=str(log))
    gateway.start([make_tenant("acme"), make_tenant("globex", tier="bronze")], full)
    overloaded(gateway, {"x-tenant-id": "acme"})
    before, served = refused(gateway), len(stable.requests)
    answers = [ask(gateway, {"x-tenant-id": name}) for name in ("acme", "globex", "acme", "acme")]
    for answer in answers:
        assert answer.status_code == 429
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["limit"] == "gateway"
    assert [answer.json()["tenant"] for answer in answers] == ["acme", "globex", "acme", "acme"]
    assert len(stable.requests) == served
    # Strangers are refused as ever, and make no label.
    assert ask(gateway, {"x-tenant-id": "stranger"}).status_code == 403
    assert ask(gateway, {}).status_code == 400
    until(lambda: refused(gateway) - before == {"acme": 3, "globex": 1}, "each is counted")
    assert set(refused(gateway)) == {"acme", "globex"}
    # Nobody is refused before it is known whose the request is.
    closed = re.findall(r"^envoy_http_downstream_rq_overload_close\{.*\} (\d+)", gateway.metrics(), re.M)
    assert set(closed) <= {"0"}

    def used() -> Counter[str]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return Counter(line["tenant"] for line in lines if line["shed"] == "overload")

    until(lambda: used() == refused(gateway), "usage has the same")


def test_probes_metrics_and_drains_go_on(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme")], full)
    overloaded(gateway, {"x-tenant-id": "acme"})
    for path in ("/livez", "/readyz", "/metrics", "/config_dump"):
        assert httpx.get(f"{gateway.operations}{path}").status_code == 200


def test_a_tenant_is_known_by_its_token_alone(make_gateway: MakeGateway) -> None:
    issuer = Issuer()
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.jwks}
    gateway = make_gateway(identity=Identity.model_validate({"jwt": jwt}))
    gateway.start([make_tenant("acme"), make_tenant("globex")], full)
    token = {"authorization": f"Bearer {issuer.token('acme')}"}
    overloaded(gateway, token)
    before = refused(gateway)
    # Whoever says to be another one is counted as what the token says, and without one as nobody.
    assert ask(gateway, {**token, "x-tenant-id": "globex"}).json()["tenant"] == "acme"
    assert ask(gateway, {"x-tenant-id": "globex"}).status_code == 401
    until(lambda: refused(gateway) - before == {"acme": 1}, "it is counted")
    assert set(refused(gateway)) == {"acme"}


def test_a_flood_that_is_refused_does_not_fill_the_heap_further(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme")], full)
    overloaded(gateway, {"x-tenant-id": "acme"})

    def flood(requests: int) -> int:
        body = b"x" * 100_000
        with httpx.Client(base_url=gateway.url, headers={"x-tenant-id": "acme"}, timeout=30) as client:
            for _ in range(requests):
                assert client.post("/v1/events", content=body).status_code == 429
        found = re.search(r"^envoy_server_memory_allocated\{\} (\d+)", gateway.metrics(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    # The first make what stays: buckets, counters, pools.
    settled = flood(200)
    assert flood(1_000) < settled + 1_000_000
