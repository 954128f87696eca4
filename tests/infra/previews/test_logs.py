"""Whose logs a pod's are, by its name."""

from __future__ import annotations

import pytest

from infra.previews.logs import workload_of


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("orders-7d9c5b8f4d-x2k9z", "orders"),
        ("orders-bcdfghjklm-pvzmw", "orders"),
        ("closer-now-pvzmw", "closer-now"),  # letters alone are an id, too
        ("closer-migrate-rpwxk", "closer-migrate"),
        ("closer-29384756-x2k9z", "closer"),  # of a schedule
        ("closer-database-pvzmw", "closer-database"),  # a word, no hash
        ("postgres-0", "postgres"),
        ("outbox-worker-5f6b7c8d9f-l4m2n", "outbox-worker"),
        ("consumer", "consumer"),
        ("outbox-worker", "outbox-worker"),
    ],
)
def test_a_pod_is_its_workloads_by_any_suffix(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload
