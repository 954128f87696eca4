"""A real Envoy while it runs: timeouts and retries, new configuration, and what an operator asks of it."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter

import httpx

from kilo.observe.foreign import FOREIGN
from kilo.tenancy import Objective, RateLimit
from tests.patience import until
from tests.runtime.traffic.support import UpstreamServer, make_tenant
from tests.runtime.traffic.test_gateway import PROBLEM, MakeGateway, client


class TestTimeoutsAndRetries:
    def test_slow_answer_is_a_504_and_the_client_cannot_ask_for_more_time(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme", timeout_ms=200)])
        with client(gateway) as http:
            http.timeout = 10
            answer = http.post(
                "/v1/events", headers={"x-test-hang": "1", "x-envoy-upstream-rq-timeout-ms": "60000"}
            )
        assert answer.status_code == 504
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["title"] == "Gateway Timeout"

    def test_failed_tries_are_repeated_as_often_as_the_tenant_has_retries(
        self, make_gateway: MakeGateway, stable: UpstreamServer
    ) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme", retries=2), make_tenant("globex", tier="bronze", retries=0)])
        with client(gateway) as http:
            healed = http.post("/v1/events", headers={"idempotency-key": "a", "x-test-failures": "2"})
            failed = http.post("/v1/events", headers={"idempotency-key": "b", "x-test-failures": "9"})
        with client(gateway, "globex") as http:
            once = http.post(
                "/v1/events",
                headers={
                    "idempotency-key": "c",
                    "x-test-failures": "1",
                    "x-envoy-retry-on": "5xx",
                    "x-envoy-max-retries": "5",
                },
            )
        assert (healed.status_code, failed.status_code, once.status_code) == (200, 503, 503)
        assert stable.tries == {"a": 3, "b": 3, "c": 1}


class TestSwap:
    def test_no_request_is_dropped_while_weights_change(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme")])
        done = threading.Event()
        answers: Counter[int] = Counter()
        failures: list[Exception] = []

        def load() -> None:
            with client(gateway) as http:
                while not done.is_set():
                    try:
                        answers[http.post("/v1/events", content=b"{}").status_code] += 1
                    except httpx.HTTPError as error:
                        failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for weight in (10, 25, 50, 75, 100, 0):
                gateway.swap(
                    [make_tenant("acme", next_weight_percent=weight), make_tenant(f"tenant-{weight}")]
                )
                expected = {"next-gold": weight, "stable-gold": 100 - weight}
                until(
                    lambda expected=expected: gateway.weights("acme") == expected, f"weight {weight} active"
                )
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failures
        assert set(answers) == {200}

    def test_invalid_routes_are_refused_and_the_last_good_ones_stay(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme")])
        files = {
            path.name: path.read_text() for path in gateway.directory.iterdir() if path.suffix == ".json"
        }
        gateway.mount(
            {**files, "routes.json": files["routes.json"].replace("weighted_clusters", "no_such_clusters")}
        )
        refused = r"^envoy_http_rds_update_rejected\{.*\} [1-9]"
        until(lambda: re.search(refused, gateway.metrics(), re.M) is not None, "refusal counted")
        with client(gateway) as http:
            assert http.post("/v1/events").status_code == 200


class TestOperations:
    def test_health_and_nothing_that_can_stop_the_process(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start([make_tenant("acme")])
        assert httpx.get(f"{gateway.operations}/livez").status_code == 200
        assert httpx.get(f"{gateway.operations}/readyz").status_code == 200
        for path in (
            "/quitquitquit",
            "/healthcheck/fail",
            "/drain_listeners",
            "/runtime_modify?x=1",
            "/",
            "/memory",
        ):
            assert httpx.post(f"{gateway.operations}{path}").status_code == 404
            assert httpx.get(f"{gateway.operations}{path}").status_code == 404
        assert httpx.get(f"{gateway.operations}/readyz").status_code == 200

    def test_statistics_name_listed_tenants_alone(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        gateway.start(
            [make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=1)), make_tenant("globex")]
        )
        with client(gateway) as http:
            until(lambda: http.post("/v1/events").status_code == 429, "limit met")
        with client(gateway, "intruder") as http:
            http.post("/v1/events")
        until(lambda: 'status="403"' in gateway.metrics(), "statistics flushed")

        text = gateway.metrics()

        assert 'envoy_gateway_requests_total{tenant="acme",version="stable",status="200"}' in text
        assert 'envoy_gateway_requests_total{tenant="acme",version="stable",status="429"} 1' in text
        assert 'envoy_gateway_requests_total{tenant="",version="",status="403"} 1' in text
        assert "intruder" not in text

    def test_envoy_exports_what_rules_and_dashboards_ask_for(self, make_gateway: MakeGateway) -> None:
        # What the rate limit service counts comes with it alone: tests/surge/test_deployed_limits.py.
        asked_for = {
            name: set(series.labels)
            for name, series in FOREIGN.items()
            if name.startswith("envoy_") and "_ratelimit_" not in name
        }
        assert len(asked_for) > 10
        gateway = make_gateway()
        gateway.start([make_tenant("acme", limit=RateLimit(requests_per_second=1, burst=1))])
        with client(gateway) as http:
            statuses = {http.post("/v1/events").status_code for _ in range(5)}
        assert 429 in statuses
        until(lambda: "envoy_gateway_request_duration_milliseconds_bucket" in gateway.metrics(), "flushed")

        exported: dict[str, set[str]] = {}
        for name, labels in re.findall(r"^(\w+)\{(.*)\} ", gateway.metrics(), re.M):
            exported.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))

        missing = [
            name for name, labels in asked_for.items() if name not in exported or not labels <= exported[name]
        ]
        assert missing == []

    def test_every_objective_is_a_bucket_of_the_latency_histogram(self, make_gateway: MakeGateway) -> None:
        gateway = make_gateway()
        odd = Objective(availability_percent=99.9, latency_threshold_ms=317, latency_percent=99)
        gateway.start([make_tenant("acme", objective=odd)])
        with client(gateway) as http:
            http.post("/v1/events")
        series = 'envoy_gateway_request_duration_milliseconds_bucket{tenant="acme",version="stable",le="317"}'
        until(lambda: series in gateway.metrics(), "histogram with the objective's bucket")

    def test_trace_goes_through_unchanged_and_into_the_access_log(
        self, make_gateway: MakeGateway, stable: UpstreamServer
    ) -> None:
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        gateway = make_gateway()
        gateway.start([make_tenant("acme")])
        with client(gateway) as http:
            http.post("/v1/events?token=hidden", headers={"traceparent": traceparent, "tracestate": "kilo=1"})
        assert stable.requests[0]["traceparent"] == traceparent
        assert stable.requests[0]["tracestate"] == "kilo=1"
        until(lambda: traceparent in gateway.log.read_text(), "access log written")
        line = json.loads(gateway.log.read_text().splitlines()[-1])
        assert (line["tenant"], line["version"], line["status"]) == ("acme", "stable", 200)
        assert (line["traceparent"], line["path"]) == (traceparent, "/v1/events")
        assert "hidden" not in gateway.log.read_text()
