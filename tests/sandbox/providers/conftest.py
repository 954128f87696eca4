"""The servers behind the providers, and an example of each provider."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.engine.environment import Endpoints
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from tests.sandbox.providers import aws_example, gcp_example, random_example
from tests.sandbox.providers.examples import Example
from tests.sandbox.support import Project


@contextmanager
def running_clouds(directory: Path) -> Generator[Endpoints]:
    """Servers of both clouds, which keep nothing but what is in ``directory``."""
    aws, gcs = MotoServer(directory / "aws"), FakeGcsServer(directory / "gcs")
    aws.start()
    gcs.start()
    try:
        yield Endpoints(aws=aws.url, gcs=gcs.url)
    finally:
        aws.stop()
        gcs.stop()


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The clouds' servers."""
    with running_clouds(tmp_path_factory.mktemp("clouds")) as found:
        yield found


@pytest.fixture(scope="session")
def credentials() -> Iterator[None]:
    """Those that the sandbox's servers take, for the tests' own clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "sandbox")
        yield


@pytest.fixture(scope="session", params=["aws", "gcp", "random"])
def example(request: pytest.FixtureRequest, endpoints: Endpoints, credentials: None) -> Example:
    """One provider."""
    made: dict[str, Callable[[], Example]] = {
        "aws": lambda: aws_example.example(str(endpoints.aws)),
        "gcp": lambda: gcp_example.example(str(endpoints.gcs)),
        "random": random_example.example,
    }
    return made[request.param]()


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints) -> Path:
    """A project with an empty stack, to be copied."""
    return Project(tmp_path_factory.mktemp("blank"), endpoints).directory


@pytest.fixture
def project(tmp_path: Path, endpoints: Endpoints, example: Example, blank: Path) -> Project:
    """An empty project with the example's configuration."""
    return Project(tmp_path, endpoints, example.config, blank, example.head)
