"""The rendered configuration, run by a real Envoy in front of real upstreams."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from kilo.tenancy import Objective, RateLimit
from kilo.traffic.settings import Upstream
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, free_port, make_tenant

MakeGateway = Callable[..., Gateway]
PROBLEM = "application/problem+json"


def client(gateway: Gateway, tenant: str | None = "acme") -> httpx.Client:
    headers = {} if tenant is None else {"x-tenant-id": tenant}
    return httpx.Client(base_url=gateway.url, headers=headers, timeout=30)


def versions_by_key(gateway: Gateway, keys: range) -> dict[int, str]:
    with client(gateway) as http:
        return {key: http.post("/v1/events", headers={"idempotency-key": f"key-{key}"}).text for key in keys}


class TestWeights:
    def test_share_of_the_next_version_is_the_tenants_weight(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme", next_weight_percent=20), make_tenant("globex")])

        shares = Counter(versions_by_key(gateway, range(2000)).values())

        # 400 expected with a standard deviation of 18; the hash of fixed keys makes the count repeatable.
        assert 320 <= shares["next"] <= 480
        assert shares["next"] + shares["stable"] == 2000

    def test_tenant_without_weight_stays_on_stable(
        self, make_gateway: MakeGateway, trial: UpstreamServer
    ) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme"), make_tenant("globex", next_weight_percent=100)])

        assert set(versions_by_key(gateway, range(200)).values()) == {"stable"}
        assert not trial.requests

    def test_same_key_meets_the_same_version_and_a_raised_weight_takes_none_back(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme", next_weight_percent=20)])
        keys = range(400)
        at_20 = versions_by_key(gateway, keys)
        assert versions_by_key(gateway, keys) == at_20

        gateway.swap([make_tenant("acme", next_weight_percent=50)])
        until(lambda: gateway.weights("acme") == {"next-gold": 50, "stable-gold": 50}, "weight 50 active")
        at_50 = versions_by_key(gateway, keys)

        moved = {key for key in keys if at_20[key] == "next"}
        assert moved
        assert moved < {key for key in keys if at_50[key] == "next"}


class TestLimits:
    def test_tenant_over_its_limit_is_told_when_to_come_back_and_others_are_not_touched(
        self, make_gateway: MakeGateway, stable: UpstreamServer
    ) -> None:
        gateway = make_gateway(replicas=5)
        gateway.start(
            [make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=25)), make_tenant("globex")]
        )
        with client(gateway) as http:
            answers = [http.post("/v1/events") for _ in range(60)]

        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert len(answers) - len(refused) >= 5
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == PROBLEM
            assert answer.json()["status"] == 429
            assert "limit" in answer.json()["detail"]
        # A fifth of a token a second: the hint is computed, not the fallback of one second.
        assert max(int(answer.headers["retry-after"]) for answer in refused) > 1
        assert len(stable.requests) == len(answers) - len(refused)
        with client(gateway, "globex") as http:
            assert {http.post("/v1/events").status_code for _ in range(60)} == {200}

    def test_a_refusal_says_which_limit_whose_and_when_in_old_and_new_fields(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = make_gateway(replicas=2)
        gateway.start([make_tenant("acme", limit=RateLimit(requests_per_second=2, burst=20))])
        with client(gateway) as http:
            answers = [http.post("/v1/events") for _ in range(400)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        for answer in (answers[0], refused[-1]):
            left, seconds = (answer.headers[f"x-ratelimit-{name}"] for name in ("remaining", "reset"))
            assert answer.headers["ratelimit"] == f'"tenant";r={left};t={seconds}'
            assert answer.headers["ratelimit-policy"] == '"tenant";q=10;w=10'
        problem = refused[-1].json()
        assert problem["type"].endswith("docs/traffic.md#refusals")
        assert (problem["limit"], problem["tenant"], problem["status"]) == ("tenant", "acme", 429)
        # Nobody is asked to come back before the bucket has a token, nor all at once.
        hints = Counter(int(answer.headers["retry-after"]) for answer in refused)
        assert min(hints) >= 1
        assert len(hints) >= 2

    def test_gateways_share_a_tenants_burst(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway(replicas=4)
        gateway.start([make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=40))])
        with client(gateway) as http:
            answers = Counter(http.post("/v1/events").status_code for _ in range(40))
        assert 10 <= answers[200] < 40

    def test_changed_limit_reaches_a_running_gateway(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=1))])
        with client(gateway) as http:
            until(lambda: http.post("/v1/events").status_code == 429, "limit met")
            gateway.swap([make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=500))])
            until(
                lambda: {http.post("/v1/events").status_code for _ in range(20)} == {200},
                "larger burst in force",
            )

    def test_changed_weight_leaves_the_buckets_as_they_were(self, make_gateway: MakeGateway) -> None:
        limit = RateLimit(requests_per_second=1, burst=300)
        gateway = make_gateway()
        gateway.start([make_tenant("acme", limit=limit)])
        with client(gateway) as http:
            until(lambda: http.post("/v1/events").status_code == 429, "bucket empty")
            gateway.swap([make_tenant("acme", limit=limit, next_weight_percent=100)])
            until(lambda: gateway.weights("acme").get("next-gold") == 100, "weight active")
            answers = Counter(http.post("/v1/events").status_code for _ in range(100))
        assert answers[429] > 0

    def test_limits_can_be_switched_off_at_run_time(self, make_gateway: MakeGateway) -> None:
        tenants = [make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=1))]
        gateway = make_gateway()
        gateway.start(tenants)
        with client(gateway) as http:
            until(lambda: http.post("/v1/events").status_code == 429, "limit met")
            gateway.swap(tenants, gateway.settings.model_copy(update={"limits_enforced": False}))
            until(
                lambda: {http.post("/v1/events").status_code for _ in range(20)} == {200},
                "limits no longer enforced",
            )


class TestRefusals:
    @pytest.mark.parametrize("tenant", ["nobody", "acme,globex", "ACME", "acme x"])
    def test_unknown_tenant_is_forbidden(
        self, make_gateway: MakeGateway, stable: UpstreamServer, tenant: str
    ) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme"), make_tenant("globex")])
        with client(gateway, tenant) as http:
            answer = http.post("/v1/events")
        assert answer.status_code == 403
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json() == {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": "x-tenant-id: no such tenant",
        }
        assert not stable.requests

    def test_missing_tenant_is_a_bad_request(self, make_gateway: MakeGateway, stable: UpstreamServer) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme")])
        with client(gateway, None) as http:
            answer = http.post("/v1/events")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == PROBLEM
        assert "x-tenant-id: missing" in answer.json()["detail"]
        assert not stable.requests

    def test_service_that_is_down_is_a_503_with_a_hint(
        self, make_gateway: MakeGateway, stable: UpstreamServer
    ) -> None:
        gateway = make_gateway()
        gateway.settings = gateway.settings.model_copy(
            update={"stable": Upstream(host=ADDRESS, port=free_port())}
        )
        gateway.start([make_tenant("acme")])
        with client(gateway) as http:
            answer = http.post("/v1/events")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == PROBLEM
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        assert not stable.requests

    def test_slow_service_is_shielded_by_adaptive_concurrency(self, make_gateway: MakeGateway) -> None:
        target = Objective(availability_percent=99.9, latency_threshold_ms=1, latency_percent=99)
        gateway = make_gateway(min_concurrent_requests=1)
        gateway.start([make_tenant("acme", objective=target)])
        refused: list[httpx.Response] = []
        enough = threading.Event()

        def load() -> None:
            with client(gateway) as http:
                for _ in range(500):
                    answer = http.post("/v1/events", headers={"x-test-delay": "0.05"})
                    if answer.status_code == 429:
                        refused.append(answer)
                        enough.set()
                    if enough.is_set():
                        return

        threads = [threading.Thread(target=load) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused
        assert refused[0].headers["retry-after"] in {"1", "2", "3"}
        assert refused[0].json()["limit"] == "capacity"
