"""The commands of backup, as an operator runs them."""

from __future__ import annotations

import json

import psycopg
import pytest
from typer.testing import CliRunner

from kilo.backup.catalogue import unwrap_data_key
from kilo.backup.cli import app
from kilo.backup.keys import BackupKey
from kilo.backup.restore import restore
from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from tests.runtime.backup.test_backup import Stores, back_up


@pytest.mark.usefixtures("outputs_file")
def test_the_commands_from_end_to_end(
    filled_url: str, target_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    monkeypatch.setenv("DATABASE_URL", filled_url)
    taken = runner.invoke(app, ["run", "--json"])
    assert taken.exception is None
    backup = json.loads(taken.stdout)
    assert backup["rows"] == 20_104
    [listed] = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert (listed["backup"], listed["stores"]) == (backup["backup"], ["primary", "secondary"])
    checks = json.loads(runner.invoke(app, ["verify", "--json"]).stdout)
    assert all(check["ok"] for check in checks)
    restored = runner.invoke(app, ["restore", "--to", target_url, "--from", "secondary", "--json"])
    assert restored.exception is None
    assert json.loads(restored.stdout)["rows"] == 20_104
    assert runner.invoke(app, ["complete"]).stdout.strip() == "nothing to complete"
    again = runner.invoke(app, ["restore", "--to", target_url])
    assert isinstance(again.exception, BadInput)


@pytest.mark.usefixtures("outputs_file")
def test_a_restore_takes_what_either_store_has(
    outputs: StackOutputs,
    stores: Stores,
    filled_url: str,
    target_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = back_up(outputs, stores, filled_url).manifest
    one = back_up(outputs, {"secondary": stores["secondary"]}, filled_url).manifest
    monkeypatch.setenv("COLUMNS", "80")
    listed = CliRunner().invoke(app, ["list"]).stdout
    assert "…" not in listed
    rows = {
        manifest.id: line.split()
        for manifest in (both, one)
        for line in listed.splitlines()
        if manifest.id in line
    }
    assert "both" in rows[both.id]
    assert "secondary" in rows[one.id]
    restored = CliRunner().invoke(app, ["restore", "--to", target_url, "--json"])
    assert restored.exception is None
    document = json.loads(restored.stdout)
    assert (document["backup"], document["left_out"]) == (one.id, [])
    assert document["store"] == stores["secondary"].describe()
    absent = CliRunner().invoke(app, ["restore", one.id, "--to", target_url, "--from", "primary"])
    assert isinstance(absent.exception, BadInput)


def test_an_error_of_pg_restore_is_its_own_and_no_row(
    outputs: StackOutputs, stores: Stores, key: BackupKey, empty_database_url: str, target_url: str
) -> None:
    """A generated column by a function that finds another by the search path alone can't be restored."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION inner_f(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'"
        )
        connection.execute(
            "CREATE FUNCTION slug(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT"
            " AS $$BEGIN RETURN inner_f(v); END$$"
        )
        connection.execute(
            "CREATE TABLE art (title text, slug text GENERATED ALWAYS AS (slug(title)) STORED)"
        )
        connection.execute("INSERT INTO art (title) VALUES ('a secret')")
    manifest = back_up(outputs, stores, empty_database_url).manifest
    with pytest.raises(CheckFailed, match=r"function inner_f\(text\) does not exist") as raised:
        restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url)
    assert "secret" not in str(raised.value)
