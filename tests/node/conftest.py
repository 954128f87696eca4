"""One real node for all tests of this folder, with the platform's own image on it; nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.bring_up import bring_up
from tests.node.leaving import node_that_leaves_nothing
from tests.node.node import RealNode
from tests.node.stage import StageOnNode


@pytest.fixture(scope="session")
def node() -> Iterator[RealNode]:
    with node_that_leaves_nothing() as made:
        bring_up(made)
        yield made


@pytest.fixture(scope="session")
def stage(node: RealNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageOnNode]:
    made = StageOnNode(node, tmp_path_factory.mktemp("checkout") / "kilo")
    try:
        made.up("--no-tour")
        yield made
    finally:
        made.remove()
