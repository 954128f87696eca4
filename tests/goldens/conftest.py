"""One throw-away place, and the base's state in it, for every golden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.rehearsal import Rehearsal
from tests.goldens.scenarios import DATABASE_URL, STAGE, copy_program


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as it is."""
    return copy_program(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def empty() -> Iterator[Rehearsal]:
    """A place where nothing has been deployed."""
    with Rehearsal(DATABASE_URL) as rehearsal:
        yield rehearsal


@pytest.fixture(scope="session")
def deployed(base: Path) -> Iterator[Rehearsal]:
    """A place where the program as it is has been carried out."""
    with Rehearsal(DATABASE_URL) as rehearsal:
        rehearsal.carry_out(base, STAGE)
        yield rehearsal
