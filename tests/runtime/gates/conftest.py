"""A Prometheus with a history, a stage's database and its principals."""

from __future__ import annotations

from tests.runtime.fle.conftest import PEOPLE, Stage, aws, moto_url, stage
from tests.runtime.goals.conftest import History, connection, history, outputs

__all__ = [
    "PEOPLE",
    "History",
    "Stage",
    "aws",
    "connection",
    "history",
    "moto_url",
    "outputs",
    "stage",
]
