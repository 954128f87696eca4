"""Features: routes, weights and copies of their own, for the tenants that have a weight for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openfeature.evaluation_context import EvaluationContext

from kilo.errors import BadInput
from kilo.flags import StageFlags
from kilo.tenancy import Tenant
from kilo.traffic.active import read_active
from kilo.traffic.envoy import container_args, render_files
from kilo.traffic.features import FeatureRoutes, HeaderMatch
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream
from kilo.traffic.validation import render_whole, validate
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, ENVOY, Gateway, UpstreamServer, make_tenant

MakeGateway = Callable[..., Gateway]
STABLE = Upstream(host="ingest.kilo-dev.svc.cluster.local", port=10081)
NEXT = Upstream(host="checkout.shop.svc.cluster.local", port=8080)

PATHS = st.none() | st.sampled_from(["/v1", "/v1/checkout", "/v1/events:batch", "/a+b/$c"])
HEADERS = st.none() | st.builds(
    HeaderMatch,
    name=st.sampled_from(["x-feature", "accept"]),
    value=st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True),
)


@st.composite
def stages(draw: st.DrawFn) -> tuple[list[Tenant], GatewaySettings]:
    ids = draw(
        st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,5}[a-z0-9]", fullmatch=True), unique=True, max_size=3)
    )
    features = tuple(
        GatewayFeature(id=name, routes=FeatureRoutes(path=draw(PATHS), header=draw(HEADERS)), next=NEXT)
        for name in ids
    )
    weight = st.just("shadow") | st.integers(0, 100)
    ramps = st.dictionaries(st.sampled_from(ids), weight) if ids else st.just(dict[str, Any]())
    tenants = [
        make_tenant(f"tenant-{number}", tier=tier, ramps=draw(ramps), retries=number)
        for number, tier in enumerate(
            draw(st.lists(st.sampled_from(["gold", "silver", "bronze"]), min_size=1, max_size=4))
        )
    ]
    return tenants, GatewaySettings(stable=STABLE, next=None, features=features)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(stages())
def test_envoy_accepts_any_valid_list_with_features(stage: tuple[list[Tenant], GatewaySettings]) -> None:
    validate(render_whole(*stage), ENVOY)


def test_a_stage_without_weights_is_rendered_as_one_without_features() -> None:
    tenants = [make_tenant("acme"), make_tenant("globex", tier="bronze")]
    plain = GatewaySettings(stable=STABLE)
    listed = plain.model_copy(update={"features": (GatewayFeature(id="checkout-v2", next=NEXT),)})
    before, after = render_files(tenants, plain), render_files(tenants, listed)
    assert {name for name in before if before[name] != after[name]} == {
        "bootstrap.json",
        "clusters.json",
        "flags.json",
    }
    assert "feature" not in container_args(tenants, plain)[-1]


def test_a_ramp_step_leaves_pods_and_limits_alone() -> None:
    given = GatewaySettings(stable=STABLE, features=(GatewayFeature(id="checkout-v2", next=NEXT),))
    before, after = (
        [make_tenant("acme", ramps={"checkout-v2": weight}), make_tenant("globex")] for weight in (5, 25)
    )
    first, second = render_files(before, given), render_files(after, given)
    assert {name for name in first if first[name] != second[name]} == {"routes.json", "flags.json"}
    assert container_args(before, given) == container_args(after, given)


def test_weights_for_nothing_and_beside_the_services_are_refused() -> None:
    given = GatewaySettings(stable=STABLE, next=NEXT)
    with pytest.raises(BadInput, match="tenant acme: ramps: there is no feature 'x'; features: none"):
        render_files([make_tenant("acme", ramps={"x": 5})], given)
    both = given.model_copy(update={"features": (GatewayFeature(id="x", next=NEXT),)})
    with pytest.raises(BadInput, match="beside next_weight_percent 5"):
        render_files([make_tenant("acme", ramps={"x": 5}, next_weight_percent=5)], both)


CHECKOUT = FeatureRoutes(path="/v1/checkout", header=HeaderMatch(name="x-client", value="app"))


@pytest.fixture
def gateway(make_gateway: MakeGateway, trial: UpstreamServer) -> Gateway:
    upstream = Upstream(host=ADDRESS, port=trial.port)
    return make_gateway(
        next=None, features=(GatewayFeature(id="checkout-v2", routes=CHECKOUT, next=upstream),)
    )


def ask(gateway: Gateway, path: str, tenant: str = "acme", method: str = "POST", **headers: str) -> str:
    named = {"x-tenant-id": tenant, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.request(method, gateway.url + path, headers=named, timeout=30).text


def test_only_the_features_requests_of_its_tenants_go_to_its_next_version(gateway: Gateway) -> None:
    gateway.start([make_tenant("acme", ramps={"checkout-v2": 100}), make_tenant("globex")])
    assert ask(gateway, "/v1/checkout", x_client="app") == "next"
    assert ask(gateway, "/v1/checkout/pay", x_client="app") == "next"
    assert ask(gateway, "/v1/checkout2", x_client="app") == "stable"
    assert ask(gateway, "/v1/checkout") == "stable"
    assert ask(gateway, "/v1/checkout", x_client="apps") == "stable"
    assert ask(gateway, "/v1/checkout", tenant="globex", x_client="app") == "stable"
    assert [tenant.next_weight_percent for tenant in read_active(gateway.operations)] == [0, 0]
    counted = (
        'envoy_gateway_requests_total{tenant="acme",version="next",feature="checkout-v2",status="200"} 2'
    )
    until(lambda: counted in gateway.metrics(), "requests counted by feature")
    assert 'version="stable",feature="",status="200"' in gateway.metrics()


def _answers(gateway: Gateway, keys: list[str]) -> dict[str, str]:
    """Which version answers each idempotency key."""
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=gateway.url, timeout=30) as http:

        def answer(key: str) -> str:
            named = {"x-tenant-id": "acme", "x-client": "app", "idempotency-key": key}
            return http.post("/v1/checkout", headers=named).text

        return dict(zip(keys, pool.map(answer, keys), strict=True))


def test_weights_hold_and_a_raised_one_takes_no_key_back(gateway: Gateway) -> None:
    """1,600 keys a weight here; tests/scale has 100,000."""
    keys, moved = [f"key-{number}" for number in range(1_600)], set[str]()
    gateway.start([make_tenant("acme", ramps={"checkout-v2": 0})])
    for weight in (5, 25):
        gateway.swap([make_tenant("acme", ramps={"checkout-v2": weight})])
        until(
            lambda weight=weight: (
                f'"weight": {weight}' in str(gateway.config_dump("dynamic_route_configs")).replace("'", '"')
            )
        )
        answers = _answers(gateway, keys)
        now = {key for key, answer in answers.items() if answer == "next"}
        expected, deviation = len(keys) * weight / 100, (len(keys) * weight / 100 * (1 - weight / 100)) ** 0.5
        assert abs(len(now) - expected) < 5 * deviation, Counter(answers.values())
        assert moved <= now
        moved = now


def test_copies_are_of_requests_that_have_no_second_effect(
    gateway: Gateway, stable: UpstreamServer, trial: UpstreamServer
) -> None:
    gateway.start([make_tenant("acme", ramps={"checkout-v2": "shadow"})])
    assert ask(gateway, "/v1/checkout", x_client="app") == "stable"
    assert ask(gateway, "/v1/checkout", x_client="app", idempotency_key="k") == "stable"
    assert ask(gateway, "/v1/checkout", x_client="app", method="GET", x_note="read") == "stable"
    until(lambda: len(trial.requests) == 2, "both copies")
    assert len(stable.requests) == 3
    assert sorted(("idempotency-key" in seen, "x-note" in seen) for seen in trial.requests) == [
        (False, True),
        (True, False),
    ]
    assert all("-shadow" in seen["host"] for seen in trial.requests)
    counted = r'envoy_cluster_upstream_rq\{.*envoy_cluster_name="shadow/checkout-v2/acme"\} 2'
    until(lambda: re.search(counted, gateway.metrics()), "copies counted")
    assert (
        'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="shadow/checkout-v2/acme",le="5000"}'
        in gateway.metrics()
    )


def test_a_flag_is_on_for_the_keys_that_the_gateway_sends_to_the_next_version(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = [f"order-{number}/{'x' * (number % 70)}" for number in range(400)]
    tenants = [make_tenant("acme", ramps={"checkout-v2": 37})]
    gateway.start(tenants)
    answers = _answers(gateway, keys)
    file = tmp_path / "flags.json"
    file.write_text(render_files(tenants, gateway.settings)["flags.json"])
    flags = StageFlags(file)
    flags.initialize(EvaluationContext())
    told = {
        key: flags.resolve_string_details(
            "checkout-v2", "?", EvaluationContext(key, {"tenant": "acme"})
        ).value
        for key in answers
    }
    assert told == answers
    assert set(told.values()) == {"next", "stable"}
