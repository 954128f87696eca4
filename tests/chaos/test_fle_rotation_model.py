"""Rotations in any order, thousands of steps: ``KILO_MODEL_EXAMPLES`` takes another number of stories."""

from __future__ import annotations

import os

import pytest

from tests.runtime.fle.conftest import Stage, aws, moto_url, no_time_to_settle, stage
from tests.runtime.fle.test_rotation_model import explore

__all__ = ["aws", "moto_url", "no_time_to_settle", "stage"]  # fixtures

EXAMPLES = int(os.environ.get("KILO_MODEL_EXAMPLES", "200"))


@pytest.mark.timeout(7200)
def test_no_order_of_many_steps_writes_plain_reads_wrong_or_gets_stuck(stage: Stage) -> None:
    explore(stage, EXAMPLES, steps=60)
