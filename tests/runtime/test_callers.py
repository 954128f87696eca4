"""As which role each command works: that one can, and whom the database refuses is told which."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest

from infra.tenants import records
from kilo.callers import ADMIN, ROLES_OF_COMMANDS, database_secret, role_hint, source_of_url
from kilo.cli import HELP
from kilo.database.roles import ROLES
from kilo.outbox import Event, enqueue
from tests.commands import Commands
from tests.runtime.conftest import BusServer
from tests.runtime.fle.conftest import Stage, aws, moto_url, stage, url_of
from tests.runtime.fle.test_cli import Kilo, kilo
from tests.runtime.fle.test_schedule import due

__all__ = ["aws", "kilo", "moto_url", "stage"]

BY_COMMAND = {
    "outbox status": "outbox",
    "outbox compact": "outbox",
    "outbox drain": "outbox",
    "consumer refill --consumer projection": "consumer refill",
    "dlq list": "dlq",
    "dlq show 1": "dlq",
    "dlq edit 1 --payload {}": "dlq",
    "dlq replay": "dlq",
    "dlq discard 1": "dlq",
    "dlq prune --days 0": "dlq",
    "usage report": "usage",
    "fle keys list": "fle",
    "fle keys make": "fle",
    "fle keys rewrap gold": "fle",
    "fle rotate status": "fle",
    "fle coverage": "fle",
    "fle encrypt --tenant gold --field email --row 7": "fle",
    "fle audit checkpoint --signing-key audit.pem": "fle audit",
    "fle audit verify": "fle audit",
    "fle audit export proof": "fle audit",
    "fle keys destroy-due": "fle keys destroy-due",
    "trace acme/1": "trace",
    "events find --tenant acme": "events find",
    "db migrate": "db migrate",
}
"""Commands that need nothing but the database, the bus and the cloud; and by what they are known."""
SAID = re.compile(
    r"kilo: error: .*(?:permission denied for|may not do that|is another workload's).*; `kilo ([a-z -]+)`"
    r" takes the DATABASE_URL of (the [^;]+)"
)


@pytest.fixture
def working(kilo: Kilo, stage: Stage, bus: BusServer) -> Kilo:
    """A stage that has an event, a dead letter and a consumer."""
    outputs = json.loads(stage.outputs.model_dump_json())
    outputs["bus"] = bus.outputs.bus.model_copy(update={"url": bus.server.url}).model_dump(mode="json")
    outputs["field_encryption"]["tables"] = []
    Path(kilo.environment["KILO_OUTPUTS"]).write_text(json.dumps(outputs))
    with psycopg.connect(stage.url) as connection:
        enqueue(connection, Event("acme", "order", "1", "order.paid", {"n": 1}, "acme/1"))
    stage.sql(
        "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
        " payload, headers, created_at, position) VALUES"
        " ('projection', 'parked', 'acme/1', 'acme', 'order', '1', 'order.paid', '{}', '{}', now(), 1)"
    )
    stage.past_triggers("INSERT INTO consumer_positions VALUES ('projection', %s, 1)", bus.outputs.bus.stream)
    return kilo


def run(working: Kilo, stage: Stage, commands: Commands, url: str, command: str) -> tuple[int, str]:
    if command == "fle keys destroy-due":
        due(stage)
    done = commands.run(
        *command.split(), env={**working.environment, "DATABASE_URL": url}, cwd=working.folder, value=b"{}"
    )
    return done.returncode, done.stderr.decode().strip()


def test_each_command_works_as_the_role_that_it_is_said_to_need(
    working: Kilo, stage: Stage, commands: Commands
) -> None:
    failed: dict[str, tuple[int, str]] = {}
    for command, known in BY_COMMAND.items():
        role = ROLES_OF_COMMANDS[known]
        url = stage.url if role == ADMIN else url_of(stage, f"kilo_{role}")
        code, said = run(working, stage, commands, url, command)
        if code:
            failed[command] = code, said
    assert not failed, failed


@pytest.mark.parametrize("role", ROLES)
def test_whom_the_database_refuses_is_told_in_a_line_which_secrets_url_would_be_right(
    working: Kilo, stage: Stage, commands: Commands, role: str
) -> None:
    url, refused = url_of(stage, role), set[str]()
    for command, known in BY_COMMAND.items():
        code, said = run(working, stage, commands, url, command)
        assert code in range(4), (command, said)
        if code == 2:
            told = SAID.fullmatch(said.splitlines()[-1])
            assert told, said
            assert told.groups() == (known, source_of_url(ROLES_OF_COMMANDS[known]))
            assert "key table" in said or f", as {role};" in said
            refused.add(known)
        else:
            assert code in {0, 1}, (command, said)
    assert ROLES_OF_COMMANDS.keys() & refused
    assert not {each for each in refused if f"kilo_{ROLES_OF_COMMANDS[each]}" == role}


def test_a_tenant_is_exported_as_the_role_that_reads_everything(
    working: Kilo, stage: Stage, tmp_path: Path
) -> None:
    url = url_of(stage, f"kilo_{ROLES_OF_COMMANDS['tenant offboard']}")
    assert list(records.still_open(url, "acme").values()) == [1, 1]
    assert records.export(url, "acme", tmp_path / "out") == records.check_export(
        url, "acme", tmp_path / "out"
    )


@pytest.mark.parametrize("table", ["ramps", "promotion_releases"])
def test_what_ramps_and_promotions_write_is_the_owner_s_alone(stage: Stage, table: str) -> None:
    able = [
        role
        for role in ROLES
        if stage.sql(f"SELECT has_table_privilege('{role}', '{table}', 'INSERT')")[0][0]
    ]
    assert able == []


def test_the_secrets_are_those_of_the_stage_and_the_commands_are_there() -> None:
    assert database_secret("worker") == "database-worker"
    assert set(ROLES_OF_COMMANDS.values()) <= {ADMIN, *(role.removeprefix("kilo_") for role in ROLES)}
    assert {each.partition(" ")[0] for each in ROLES_OF_COMMANDS} <= HELP.keys()


def test_the_administrators_url_is_in_no_secret_of_the_cluster() -> None:
    assert role_hint(["traffic", "ramp"]).endswith("by the name kilo:database.url_secret_id")


def test_of_other_commands_the_page_is_named() -> None:
    assert "docs/runbooks/README.md" in role_hint(["alerts"])
