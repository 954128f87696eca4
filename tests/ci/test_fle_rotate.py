"""The workflow that rotates shows the database the role that each of its commands needs."""

from __future__ import annotations

from tests.ci.workflows import load, steps

SECRETS = {
    "kilo fle rotate": "${{ secrets.FLE_DATABASE_URL }}",
    "kilo fle audit": "${{ secrets.FLE_AUDIT_DATABASE_URL }}",
}


def test_each_step_has_the_url_of_its_commands_role() -> None:
    urls = {
        command: {**job["env"], **step.get("env", {})}["DATABASE_URL"]
        for job, step in steps(load("fle-rotate.yml"))
        for command in SECRETS
        if command in step.get("run", "")
    }
    assert urls == SECRETS
