"""A stage with a real database and real object stores by their protocols, and what signs for it."""

from __future__ import annotations

from tests.runtime.fle.conftest import AUDIT_KEY, PEOPLE, Stage, aws, commands, moto_url, stage

__all__ = ["AUDIT_KEY", "PEOPLE", "Stage", "aws", "commands", "moto_url", "stage"]
