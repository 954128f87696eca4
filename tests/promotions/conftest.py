"""One dev stage for all tests of this folder, with people who sign for keys and a weight to be reverted.

KILO_PROMOTIONS_STAGE=DIRECTORY keeps the stage there and takes it up again, for whoever works on these tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.promotions.stage import PromotedStage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PromotedStage]:
    kept = os.environ.get("KILO_PROMOTIONS_STAGE")
    made = PromotedStage(Path(kept) if kept else tmp_path_factory.mktemp("stage"))
    try:
        made.ok("up", "--no-tour")
        yield made
    finally:
        if not kept:
            made.kilo("down")
    assert kept or made.processes() == []
