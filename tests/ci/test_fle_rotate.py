"""The workflow that rotates shows the database the role that each of its commands needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "fle-rotate.yml"
SECRETS = {
    "kilo fle rotate": "${{ secrets.FLE_DATABASE_URL }}",
    "kilo fle audit": "${{ secrets.FLE_AUDIT_DATABASE_URL }}",
}


def test_each_step_has_the_url_of_its_commands_role() -> None:
    job: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["rotate"]
    urls = {
        command: {**job["env"], **step.get("env", {})}["DATABASE_URL"]
        for step in job["steps"]
        for command in SECRETS
        if command in step.get("run", "")
    }
    assert urls == SECRETS
