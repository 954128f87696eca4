"""Clients that hold on to what others need: the gateway serves the others meanwhile."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, Gateway, make_tenant

MakeGateway = Callable[..., Gateway]
IDLE = 10_000


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as a test may have; the gateway inherits them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 1.5 * IDLE:
        pytest.skip(f"{hard} open files are allowed, {IDLE} and more are needed")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def served(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.url, headers={"x-tenant-id": "acme"}, timeout=30) as http:
        assert {http.post("/v1/events").status_code for _ in range(20)} == {200}


def open_to(gateway: Gateway, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    connection = stack.enter_context(socket.create_connection((ADDRESS, gateway.settings.listener_port), 30))
    connection.sendall(sent)
    return connection


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections_keep_nobody_out(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme")])
    with ExitStack() as stack:
        for _ in range(IDLE):
            open_to(gateway, stack)
        active = 'envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="tenants"} '
        until(lambda: f"{active}{IDLE}" in gateway.metrics(), "all connections there")
        served(gateway)


@pytest.mark.usefixtures("many_files")
def test_more_connections_than_allowed_are_closed_and_probes_go_on(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(max_connections=100)
    gateway.start([make_tenant("acme")])
    with ExitStack() as stack:
        for _ in range(300):
            open_to(gateway, stack)
        assert httpx.get(f"{gateway.operations}/readyz").status_code == 200
    until(lambda: _served(gateway), "room again")


def _served(gateway: Gateway) -> bool:
    try:
        return httpx.post(f"{gateway.url}/v1/events", headers={"x-tenant-id": "acme"}).status_code == 200
    except httpx.TransportError:
        return False


def test_who_sends_a_request_byte_by_byte_is_answered_408_and_others_at_once(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme")])
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-tenant-id: acme\r\n"
    with ExitStack() as stack:
        slow = [open_to(gateway, stack, head) for _ in range(200)]
        served(gateway)
        begun = time.monotonic()
        answers = [connection.recv(64) for connection in slow]
        print(f"200 slow heads answered after {time.monotonic() - begun:.1f} s")
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}


def test_oversized_headers_are_refused_and_cost_nobody_else(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    gateway.start([make_tenant("acme")])
    for headers in ({"x-large": "x" * 100_000}, {f"x-{n}": "1" for n in range(500)}):
        answer = httpx.post(f"{gateway.url}/v1/events", headers={"x-tenant-id": "acme", **headers})
        assert answer.status_code == 431
    served(gateway)
