"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kilo.traffic.settings import GatewaySettings, Upstream
from tests.runtime.traffic.support import ADDRESS, Gateway, UpstreamServer, free_port, make_tenant


@pytest.fixture
def stable() -> Iterator[UpstreamServer]:
    with UpstreamServer("stable") as server:
        yield server


@pytest.fixture
def trial() -> Iterator[UpstreamServer]:
    with UpstreamServer("next") as server:
        yield server


@pytest.fixture
def make_gateway(
    tmp_path: Path, stable: UpstreamServer, trial: UpstreamServer
) -> Iterator[Callable[..., Gateway]]:
    """Make a gateway in front of both upstreams; it is killed after the test."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Gateway:
            given: dict[str, Any] = {
                "stable": Upstream(host=ADDRESS, port=stable.port),
                "next": Upstream(host=ADDRESS, port=trial.port),
                **changes,
            }
            ports = {name: free_port() for name in ("listener_port", "operations_port", "drain_port")}
            settings = GatewaySettings(**ports, **given)
            gateway = Gateway(tmp_path / f"gateway-{settings.listener_port}" / "mount", settings)
            gateway.directory.mkdir(parents=True)
            stack.callback(gateway.stop)
            return gateway

        yield make


@pytest.fixture
def gateway_of_two(make_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway of two tenants that is running."""
    gateway = make_gateway()
    gateway.start([make_tenant("acme"), make_tenant("globex")])
    return gateway
