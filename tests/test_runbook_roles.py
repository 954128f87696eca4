"""As whom runbooks' commands are run on a cluster: the README's tables are what the program deploys."""

from __future__ import annotations

import re
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from kilo.callers import ADMIN, ROLES_OF_COMMANDS, database_secret
from tests.components.recorder import record
from tests.infra.programs import ROOT, pods, secret_keys

README = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")


def rows(pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, README, re.MULTILINE)


@pytest.fixture(scope="module")
def deployed() -> dict[str, dict[str, Any]]:
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")
    signing = settings.audit.model_copy(update={"signing_key_secret": "audit-key"})
    encryption = settings.field_encryption.model_copy(update={"audit_public_key": "A" * 43 + "="})
    changed = settings.model_copy(update={"audit": signing, "field_encryption": encryption})
    return dict(pods(record(lambda: deploy(changed), stack="prod")))


def test_each_command_stands_beside_the_secret_of_its_role() -> None:
    told = {
        command: secret
        for secret, commands in rows(r"^\| `(database-[a-z]+)` \| (.+) \|$")
        for command in re.findall(r"`([a-z -]+)`", commands)
    }
    (administrators,) = rows(r"^((?:`[a-z ]+`(?:, | and ))+`[a-z ]+`) take the administrator's")
    told |= dict.fromkeys(re.findall(r"`([a-z ]+)`", str(administrators)), database_secret(ADMIN))
    assert told == {command: database_secret(role) for command, role in ROLES_OF_COMMANDS.items()}


def test_the_pods_that_commands_are_run_in_have_the_role_of_the_database_and_of_the_bus(
    deployed: dict[str, dict[str, Any]],
) -> None:
    told = rows(r"^\| `([a-z ]+) …` \| `kubectl exec deploy/([a-z-]+) -n kilo -- kilo \1 …`")
    users = {"outbox": "bus-worker", "dlq": "bus-consumer", "consumer refill": "bus-reconciler"}
    assert {command for command, _ in told} == users.keys()
    for command, workload in told:
        secrets = {key["name"] for key in secret_keys(deployed[workload])}
        assert database_secret(ROLES_OF_COMMANDS[command]) in secrets
        assert users[command] in secrets


def test_a_job_by_hand_is_of_the_cron_job_that_runs_the_command(deployed: dict[str, dict[str, Any]]) -> None:
    told = rows(r"^\| `kilo ([a-z -]+)` \| `([a-z-]+)` \|$")
    assert len(told) == 6
    for command, name in told:
        assert deployed[name]["containers"][0]["args"] == command.split()
