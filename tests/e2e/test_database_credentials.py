"""The dev stage's database: new passwords for its roles, under load, lose no request and no event.

One stage is brought up for all tests of this file, which build on each other in order.
"""

from __future__ import annotations

import base64
import subprocess

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from kilo.logins import login_of
from sandbox import daemon
from sandbox.cluster.client import connect
from tests.e2e.conftest import PATIENCE, Stage
from tests.e2e.credentials import replace_under_load, up

pytestmark = pytest.mark.timeout(4 * PATIENCE)
_kept: dict[str, str] = {}
"""Of the worker, before its password was replaced."""


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
    replace_under_load(stage, "database")
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
