"""Three real registries, and cosign to sign in one and to verify in another."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kilo.testing.servers.ports import free_port
from kilo.testing.servers.process import ServerProcess
from sandbox.toolchain.cache import install
from sandbox.toolchain.golang import go_program
from sandbox.toolchain.progress import Progress
from tests.runtime.registry.conftest import no_login, with_api, without_api
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.programs import program

__all__ = ["no_login", "with_api", "without_api"]


@pytest.fixture(scope="session")
def distribution_3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """CNCF Distribution 3, which has no referrers API either, built from the toolchain's module."""
    recipe = go_program(
        "registry",
        {"docker-registry": "github.com/distribution/distribution/v3/cmd/registry"},
        summary="an OCI registry from its Go module, a minute",
        disk_bytes=1_500_000_000,
    )
    with Progress() as progress, progress.step(recipe.name, recipe.summary) as step:
        executable = install(recipe, step) / "docker-registry"
    directory, port = tmp_path_factory.mktemp("distribution-3"), free_port()
    url = f"http://127.0.0.1:{port}"
    configuration = directory / "config.json"
    storage = {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}}
    configuration.write_text(
        json.dumps({"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}})
    )

    def ready() -> bool:
        with urllib.request.urlopen(f"{url}/v2/", timeout=5) as response:
            return response.status == 200

    server = ServerProcess(
        name="distribution-3",
        argv=[str(executable), "serve", str(configuration)],
        env={"OTEL_TRACES_EXPORTER": "none"},
        directory=directory,
        log_path=directory / "log",
        ready=ready,
    )
    server.start()
    yield url
    server.stop()


@pytest.fixture
def shelf(
    with_api: str, without_api: str, distribution_3: str, request: pytest.FixtureRequest
) -> Callable[[str, str], Shelf]:
    """A repository of this test's own in the registry of that name."""
    urls = {"api": with_api, "debian": without_api, "distribution-3": distribution_3}
    own = "".join(letter for letter in request.node.name.lower() if letter.isalnum())
    return lambda kind, name: Shelf(urls[kind], f"{own}/{name}")


@pytest.fixture
def cosign(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs cosign, with a key pair in ``tmp_path``."""
    executable = program("cosign")
    environment = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert run("generate-key-pair").returncode == 0
    return run
