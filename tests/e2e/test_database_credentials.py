"""The dev stage's database: new passwords for its roles, under load, lose no request and no event.

One stage is brought up for all tests of this file, which build on each other in order.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from kilo.logins import login_of
from sandbox import daemon
from sandbox.cluster.client import connect
from tests.e2e.conftest import PATIENCE, Stage

pytestmark = pytest.mark.timeout(4 * PATIENCE)
_kept: dict[str, str] = {}
"""Of the worker, before its password was replaced."""


def put_credentials(stage: Stage, text: str) -> None:
    file = stage.directory / "Pulumi.dev.yaml"
    before = file.read_text(encoding="utf-8")
    after = re.sub(
        r"kilo:database: \{( credentials: \{[^}]*\},)?", f"kilo:database: {{ credentials: {text},", before
    )
    assert after != before
    file.write_text(after, encoding="utf-8")


def up(stage: Stage) -> None:
    done = stage.kilo("up", "--no-tour")
    assert done.returncode == 0, done.stdout + done.stderr


def url_of(stage: Stage, role: str) -> str:
    outputs = stage.outputs
    name = outputs["database"]["role_secrets"][role]
    with connect(stage.endpoints.cluster) as client:
        found = client.get(f"/api/v1/namespaces/{outputs['namespace']}/secrets/{name}").raise_for_status()
    return base64.b64decode(found.json()["data"]["DATABASE_URL"]).decode()


def logins(stage: Stage) -> set[str]:
    """By whom the database is used now."""
    with psycopg.connect(daemon.database_url(stage.directory)) as connection:
        rows = connection.execute("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename ~ '^kilo_'")
        return {row[0] for row in rows.fetchall()}


@pytest.fixture(scope="module", autouse=True)
def _brought_up(stage: Stage) -> None:
    up(stage)


def test_passwords_are_replaced_under_load_without_a_lost_request_or_event(stage: Stage) -> None:
    _kept["worker"] = url_of(stage, "worker")
    assert conninfo_to_dict(_kept["worker"])["user"] == "kilo_worker"
    for step, credentials in enumerate(
        ("{ generation: 2, former_accepted: true }", "{ generation: 2 }"), start=1
    ):
        put_credentials(stage, credentials)
        sending = stage.begin("kilo tour --json --events-only --count 400 --timeout 300")
        up(stage)
        printed, errors = sending.communicate(timeout=PATIENCE)
        assert sending.returncode == 0, errors
        total = json.loads(printed)["total"]
        assert total["acknowledged"] == total["sent"], step
        assert total["lost"] == total["altered"] == total["duplicate_deliveries"] == 0, step
        assert total["delivered_by_cdc"] > 0
    assert conninfo_to_dict(url_of(stage, "worker"))["user"] == "kilo_worker_2"


def test_the_former_password_is_worth_nothing_any_more(stage: Stage) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(_kept["worker"])
    psycopg.connect(url_of(stage, "worker")).close()
    used = logins(stage)
    assert used >= {login_of(f"kilo_{role}", 2) for role in ("ingest", "worker", "consumer", "cdc")}
    assert {login for login in used if not login.endswith("_2")} == set()


def test_another_up_changes_nothing(stage: Stage) -> None:
    done: subprocess.CompletedProcess[str] = stage.pulumi("preview", "-s", "dev", "--expect-no-changes")
    assert done.returncode == 0, done.stdout + done.stderr
