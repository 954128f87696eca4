"""Every stage that the project has."""

from __future__ import annotations

import pytest

from tests.infra.programs import STAGES


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    return request.param
