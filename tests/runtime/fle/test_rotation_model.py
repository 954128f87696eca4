"""The machine of rotations in a small size; tests/chaos has the large one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .conftest import Stage
from .rotation_machine import Machine


def explore(stage: Stage, examples: int, steps: int) -> None:
    """Run the machine on a stage of its own."""
    Machine.stage = stage
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )


@pytest.mark.timeout(900)
def test_no_order_of_steps_writes_plain_reads_wrong_or_gets_stuck(stage: Stage) -> None:
    explore(stage, examples=4, steps=25)
