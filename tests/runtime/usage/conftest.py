"""An upstream for gateways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.traffic.support import UpstreamServer


@pytest.fixture
def stable() -> Iterator[UpstreamServer]:
    with UpstreamServer("stable") as server:
        yield server
