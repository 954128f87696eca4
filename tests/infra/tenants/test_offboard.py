"""The walk out of a stage, on a real database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from infra.configuration import read_stage_file
from infra.tenants.offboard import NAMES, Step, walk
from infra.tenants.records import check_export, export
from infra.tenants.stage_file import StageFile
from kilo.errors import BadInput, CheckFailed

ROOT = Path(__file__).parents[3]
TENANT = "initech"
PAYLOAD = {"note": 'a "quoted" \\ back\nslash', "email": "enc"}


@pytest.fixture
def file(tmp_path: Path) -> StageFile:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    return StageFile(Path(shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path)))


def put_event(url: str, tenant: str = TENANT, age: str = "1 hour") -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at) "
            "VALUES (gen_random_uuid()::text, %s, 'order', '1', 'order.placed', %s, now() - %s::interval)",
            (tenant, json.dumps(PAYLOAD), age),
        )


def states(steps: list[Step]) -> dict[str, bool | None]:
    return {step.name: step.done for step in steps}


def test_the_walk_goes_step_by_step(file: StageFile, database_url: str, tmp_path: Path) -> None:
    put_event(database_url)
    put_event(database_url, "acme")
    folder = tmp_path / "export"

    def walked() -> list[Step]:
        steps = walk(file, TENANT, folder, lambda: database_url)
        assert tuple(step.name for step in steps) == NAMES
        return steps

    def act(name: str) -> None:
        step = next(step for step in walked() if not step.done)
        assert step.name == name
        assert step.act is not None
        step.act()

    assert states(walked()) == {"flag off": False} | dict.fromkeys(NAMES[1:])
    act("flag off")
    act("exported")
    rows = [json.loads(line) for line in (folder / f"{TENANT}.events.jsonl").read_text().splitlines()]
    assert [(row["tenant"], row["payload"]) for row in rows] == [(TENANT, PAYLOAD)]
    act("entry removed")
    assert TENANT not in read_stage_file(file.path).tenant_ids
    last = walked()[-1]
    assert [step.done for step in walked()[:-1]] == [True] * 4
    assert last.act is None
    assert any("schedule-key-deletion" in command and "-days 7" in command for command in last.commands)


@pytest.mark.parametrize("what", ["recent event", "unpublished event", "dead letter"])
def test_nothing_goes_on_before_it_is_drained(
    file: StageFile, database_url: str, tmp_path: Path, what: str
) -> None:
    file.refuse(TENANT)
    with psycopg.connect(database_url) as connection:
        if what == "unpublished event":
            connection.execute(
                "INSERT INTO outbox (aggregate, aggregate_id, kind, payload, fingerprint, tenant) "
                "VALUES ('order', '1', 'order.placed', '{}', 'f', %s)",
                (TENANT,),
            )
        if what == "dead letter":
            connection.execute(
                "INSERT INTO dead_letters (consumer, fingerprint, tenant, aggregate, aggregate_id, kind, "
                "payload, headers, created_at, position) "
                "VALUES ('c', 'f', %s, 'order', '1', 'k', '', '{}', now(), 1)",
                (TENANT,),
            )
    if what == "recent event":
        put_event(database_url, age="1 minute")
    drained = walk(file, TENANT, tmp_path / "export", lambda: database_url)[1]
    assert drained.done is False
    assert drained.detail.startswith("still open: 1 ")


def test_an_export_is_refused_that_is_not_all_there_is(database_url: str, tmp_path: Path) -> None:
    put_event(database_url)
    export(database_url, TENANT, tmp_path)
    assert check_export(database_url, TENANT, tmp_path).rows["events"] == 1
    with pytest.raises(BadInput, match="already"):
        export(database_url, TENANT, tmp_path)
    put_event(database_url)
    with pytest.raises(CheckFailed, match="2 rows of initech, 1 exported"):
        check_export(database_url, TENANT, tmp_path)
    file = tmp_path / f"{TENANT}.events.jsonl"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(CheckFailed, match="not what its manifest says"):
        check_export(database_url, TENANT, tmp_path)


def kilo(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from infra.tenants.cli import app\nfrom kilo.errors import KiloError\nimport sys\n"
    code += "try:\n    app(prog_name='kilo tenant')\nexcept KiloError as e:\n    sys.exit(str(e))\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_changes_nothing_without_the_tenants_name(file: StageFile, database_url: str) -> None:
    folder, before = file.path.parent, file.path.read_text()
    walked = ("offboard", TENANT, "-s", "dev", "--export", "out")
    assert kilo(folder, database_url, *walked, "--dry-run").returncode == 0
    for wrong in ((), ("--confirm", "acme")):
        done = kilo(folder, database_url, *walked, *wrong)
        assert done.returncode != 0
        assert f"--confirm {TENANT}" in done.stderr
    assert file.path.read_text() == before
    assert kilo(folder, database_url, *walked, "--confirm", TENANT).returncode == 0
    assert "accepting: false" in file.path.read_text()
    shown = json.loads(kilo(folder, database_url, *walked, "--dry-run", "--json").stdout)
    assert [step["done"] for step in shown] == [True, True, False, None, None]


def test_adding_and_listing(file: StageFile) -> None:
    folder = file.path.parent
    assert (
        kilo(folder, "", "add", "acorn", "-s", "dev", "--tier", "silver", "--encrypt", "email").returncode
        == 0
    )
    listed = json.loads(kilo(folder, "", "list", "-s", "dev", "--json").stdout)
    assert listed[-1]["id"] == "acorn"
    assert listed[-1]["encrypted_fields"] == ["email"]
    assert "acorn" in kilo(folder, "", "list", "-s", "dev").stdout
    wrong = kilo(
        folder, "", "add", "acorn, tier: gold }\nkilo:protect: false #", "-s", "dev", "--tier", "gold"
    )
    assert wrong.returncode != 0
    assert "kilo:protect: false #" not in file.path.read_text()


def test_a_tenant_that_never_was_is_refused_before_anything_is_looked_at(
    file: StageFile, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"Pulumi.dev.yaml: there is no tenant 'initec', .*; tenants: acme, "):
        walk(file, "initec", tmp_path, lambda: pytest.fail("the database was asked"))
