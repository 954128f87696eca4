"""A project without clouds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.engine.environment import Endpoints
from tests.sandbox.support import Project


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an empty stack, to be copied."""
    return Project(tmp_path_factory.mktemp("blank"), Endpoints()).directory


@pytest.fixture
def project(tmp_path: Path, blank: Path) -> Project:
    """A project whose programs use the random provider at most."""
    return Project(tmp_path, Endpoints(), blank=blank)
