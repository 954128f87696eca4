"""Two real registries a session: one with the referrers API, one without; a fresh repository a test."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from sandbox.servers.registries import SecondaryRegistry
from tests.runtime.registry.hostile import HostileRegistry
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.programs import program
from tests.runtime.registry.proxy import Proxy

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def with_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """go-containerregistry's registry, which has the referrers API."""
    directory, port = tmp_path_factory.mktemp("oci-registry"), free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with urllib.request.urlopen(f"{url}/v2/", timeout=5) as response:
            return response.status == 200

    server = ServerProcess(
        name="oci-registry",
        argv=[program("oci-registry"), "-address", f"127.0.0.1:{port}", "-directory", str(directory)],
        env={},
        directory=directory,
        log_path=directory / "log",
        ready=ready,
    )
    server.start()
    yield url
    server.stop()


@pytest.fixture(scope="session")
def without_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """CNCF Distribution, which has fallback tags only."""
    server = SecondaryRegistry(tmp_path_factory.mktemp("distribution"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def shelf(with_api: str, without_api: str) -> Callable[[str], Shelf]:
    """A new repository in the registry ``with`` or ``without`` the referrers API."""
    return lambda kind: Shelf(with_api if kind == "with" else without_api, f"kilo/test{next(_numbers)}")


@pytest.fixture
def proxied() -> Iterator[Callable[[Shelf], tuple[Shelf, Proxy]]]:
    """The same repository seen through a proxy that can misbehave."""
    proxies: list[Proxy] = []

    def make(shelf: Shelf) -> tuple[Shelf, Proxy]:
        proxies.append(Proxy(shelf.url))
        return Shelf(proxies[-1].url, shelf.repository), proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the developer is logged in to must not matter."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)


@pytest.fixture
def hostile() -> Iterator[HostileRegistry]:
    registry = HostileRegistry()
    yield registry
    registry.close()
