"""Whom the gateway believes, and what it says to everybody else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from kilo.traffic.identity import Identity
from tests.patience import until
from tests.runtime.traffic.support import Gateway, UpstreamServer, make_tenant
from tests.runtime.traffic.tokens import AUDIENCE, ISSUER, Issuer, bearer

MakeGateway = Callable[..., Gateway]
TENANTS = [make_tenant("acme"), make_tenant("globex")]


def by_token(issuer: Issuer, **changes: Any) -> Identity:
    given = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.jwks, **changes}
    return Identity.model_validate({"jwt": {name: value for name, value in given.items() if value}})


def post(gateway: Gateway, headers: Any = None, path: str = "/v1/events") -> httpx.Response:
    return httpx.post(gateway.url + path, headers=headers, timeout=30)


def test_a_token_names_the_tenant_and_nothing_else_does(
    make_gateway: MakeGateway, stable: UpstreamServer
) -> None:
    issuer, stranger = Issuer(), Issuer()
    gateway = make_gateway(identity=by_token(issuer))
    gateway.start(TENANTS)
    good = issuer.token("acme")

    assert post(gateway, bearer(good)).status_code == 200
    # Named otherwise, once and twice, in the header that the services read.
    forged = [*bearer(good).items(), ("x-tenant-id", "globex"), ("x-tenant-id", "globex")]
    assert post(gateway, forged).status_code == 200
    assert [request["x-tenant-id"] for request in stable.requests] == ["acme", "acme"]
    # The token ends here: a service that logs its headers logs no credential.
    assert all("authorization" not in request for request in stable.requests)

    twice = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "tenant": "acme"})
    claimed_twice = issuer.token(payload=twice[:-1].encode() + b', "tenant": "globex"}')
    refused: list[tuple[str, Any, int, str]] = [
        ("none", {"x-tenant-id": "globex"}, 401, "Jwt is missing"),
        ("in the address", {}, 401, "Jwt is missing"),
        ("no token", bearer("abc"), 401, "not in the form"),
        ("expired", bearer(issuer.token("acme", exp=int(time.time()) - 300)), 401, "expired"),
        ("for ever", bearer(issuer.token("acme", exp=None)), 401, "verification fails"),
        ("not yet", bearer(issuer.token("acme", nbf=int(time.time()) + 600)), 401, "not yet valid"),
        (
            "issuer",
            bearer(issuer.token("acme", iss="https://evil.example/")),
            401,
            "issuer is not configured",
        ),
        ("no issuer", bearer(issuer.token("acme", iss=None)), 401, "issuer is not configured"),
        ("audience", bearer(issuer.token("acme", aud="other")), 403, "Audiences"),
        ("unsigned", bearer(issuer.unsigned("acme")), 401, "not supported"),
        ("swapped key", bearer(stranger.token("acme")), 401, "verification fails"),
        ("other key", bearer(Issuer("k2").token("acme")), 401, "kid or alg"),
        ("claim twice", bearer(claimed_twice), 401, "invalid JSON"),
        ("two tokens", [*bearer(good).items(), *bearer(issuer.token("globex")).items()], 401, "Jwt"),
        ("no claim", {**bearer(issuer.token()), "x-tenant-id": "globex"}, 403, "no claim tenant"),
        (
            "claim of many",
            bearer(issuer.token(["acme", "globex"])),
            403,
            "no such tenant",
        ),
        ("unknown", bearer(issuer.token("nobody")), 403, "no such tenant"),
        ("capitals", bearer(issuer.token("ACME")), 403, "no such tenant"),
        ("a line more", bearer(issuer.token("acme\r\nx-tenant-id: globex")), 403, "no such tenant"),
    ]
    for name, headers, status, reason in refused:
        path = f"/v1/events?access_token={good}" if name == "in the address" else "/v1/events"
        answer = post(gateway, headers, path)
        assert (name, answer.status_code) == (name, status), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert reason in answer.json()["detail"], name
    assert len(stable.requests) == 2
    # A token that is known already ends all the same; clocks may differ by a minute.
    ending = bearer(issuer.token("acme", exp=int(time.time()) - 50))
    assert post(gateway, ending).status_code == 200
    until(lambda: post(gateway, ending).status_code == 401, "token at its end")
    until(lambda: 'status="403"' in gateway.metrics(), "statistics flushed")
    assert set(re.findall(r'envoy_gateway_requests_total\{tenant="(.*?)"', gateway.metrics())) == {"", "acme"}


def test_a_header_is_believed_from_the_proxy_alone_and_is_one(
    make_gateway: MakeGateway, stable: UpstreamServer
) -> None:
    ours = make_gateway(identity=Identity.model_validate({"trusted_proxy": {"networks": ["127.0.0.0/8"]}}))
    ours.start(TENANTS)
    other = make_gateway(identity=Identity.model_validate({"trusted_proxy": {"networks": ["192.0.2.0/24"]}}))
    other.start(TENANTS)

    assert post(ours, [("x-tenant-id", "acme"), ("x-tenant-id", "globex")]).status_code == 200
    answer = post(other, {"x-tenant-id": "acme", "x-forwarded-for": "192.0.2.1"})

    assert (answer.status_code, "trusted proxy alone" in answer.text) == (403, True)
    # What was routed is what the service reads.
    assert [request["x-tenant-id"] for request in stable.requests] == ["acme"]
    assert 'tenant="globex"' not in ours.metrics()


@pytest.mark.parametrize(
    "path", ["/metrics", "/livez", "/readyz", "/", "/v1", "/v1/../metrics", "/%2e%2e/metrics"]
)
def test_only_the_api_is_reached_from_outside(
    path: str, gateway_of_two: Gateway, stable: UpstreamServer
) -> None:
    answer = httpx.Client(base_url=gateway_of_two.url).send(
        httpx.Request("GET", gateway_of_two.url + path, headers={"x-tenant-id": "acme"})
    )
    assert answer.status_code == 404, answer.text
    assert answer.json()["detail"] == "no such path; the API is /v1/"
    assert not stable.requests


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "one of them"),
        ({"jwt": {"issuer": "i", "audience": "a"}}, "jwks_url or jwks"),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks": "{"}}, "not JSON"),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks": '{"keys": []}'}}, "no keys"),
        (
            {"jwt": {"issuer": "i", "audience": "a", "jwks": '{"keys": [{"kty": "oct", "k": "x"}]}'}},
            "is a secret",
        ),
        (
            {"jwt": {"issuer": "i", "audience": "a", "jwks": '{"keys": [{"kty": "EC", "d": "x"}]}'}},
            "private key",
        ),
        ({"jwt": {"issuer": "i", "audience": "a", "jwks_url": "http://id.example.com/"}}, "pattern"),
        ({"trusted_proxy": {"networks": ["0.0.0.0/0"]}}, "everybody"),
        ({"trusted_proxy": {"networks": ["10.0.0.1/8"]}}, "host bits"),
    ],
)
def test_an_identity_that_would_verify_nothing_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Identity.model_validate(given)
