"""docs/runbooks/lost-region.md, walked: no store and no key of the primary's region answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from typer.testing import CliRunner

from kilo.backup.cli import app
from kilo.backup.stores import open_stores
from kilo.contract import KeyReference, StackOutputs, TenantOutputs
from kilo.errors import CheckFailed, Unreachable
from kilo.fle import FieldCipher
from kilo.fle.cli import app as fle
from sandbox.servers.moto import MotoServer
from tests.runtime.backup.conftest import REGION
from tests.runtime.backup.test_backup import back_up
from tests.runtime.registry.proxy import Proxy

RUNBOOK = (Path(__file__).resolve().parents[3] / "docs" / "runbooks" / "lost-region.md").read_text("utf-8")


def replicated(reference: KeyReference) -> KeyReference:
    """The key with a replica in another region."""
    identifier = reference.key.rpartition("/")[2]
    there = boto3.client("kms").replicate_key(KeyId=identifier, ReplicaRegion="eu-west-1")
    return reference.model_copy(update={"key": there["ReplicaKeyMetadata"]["Arn"]})


def multi_region_key(alias: str) -> KeyReference:
    made = boto3.client("kms").create_key(MultiRegion=True)
    return KeyReference(provider="aws", key=made["KeyMetadata"]["Arn"], alias=alias)


def with_replicas(outputs: StackOutputs) -> StackOutputs:
    """The stage with a replica of each key, and a tenant."""
    own, tenants = multi_region_key("alias/backup"), multi_region_key("alias/tenant-acme")
    signing = outputs.backups.signing_key
    assert signing
    backups = outputs.backups.model_copy(
        update={
            "encryption_key": own,
            "encryption_key_replica": replicated(own),
            "signing_key_replica": replicated(signing),
        }
    )
    reference = tenants.model_copy(update={"replicas": (replicated(tenants).key,)})
    acme = TenantOutputs(tier="gold", encryption_key=reference, encrypted_fields=("email",))
    made = outputs.model_copy(update={"backups": backups, "tenants": {"acme": acme}})
    return StackOutputs.model_validate(made.model_dump())


def with_an_encrypted_field(outputs: StackOutputs, url: str) -> None:
    cipher = FieldCipher.from_outputs(outputs, url, table="customers")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, tenant text, email text)")
        connection.execute("INSERT INTO customers SELECT i, 'globex', NULL FROM generate_series(1, 3000) i")
        stored = cipher.encrypt("acme", "email", 7_000, "ana@example.com")
        connection.execute("INSERT INTO customers VALUES (7000, 'acme', %s)", (stored,))


def test_the_runbook(
    outputs: StackOutputs,
    moto: MotoServer,
    database_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = with_replicas(outputs)
    with_an_encrypted_field(stage, database_url)
    manifest = back_up(stage, open_stores(stage.backups), database_url).manifest
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(stage.model_dump(mode="json")))
    for name, value in {
        "KILO_OUTPUTS": str(file),
        "KILO_RESTORE_URL": target_url,
        "DATABASE_URL": target_url,
    }.items():
        monkeypatch.setenv(name, value)
    # Attempts cost time and change nothing here.
    monkeypatch.setattr("kilo.backup.stores.s3._ATTEMPTS", 1)
    monkeypatch.setattr("kilo.backup.kms._ATTEMPTS", 1)
    clouds = Proxy(moto.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", clouds.url)
    clouds.lost_regions = {REGION}

    def step(command: Any, name: str, *arguments: str, given: str = "") -> tuple[str, BaseException | None]:
        assert f"kilo {name} {arguments[0]}" in RUNBOOK
        as_json = ("--json",) if name == "backup" else ()
        outcome = CliRunner().invoke(command, [*arguments, *as_json], input=given)
        return outcome.stdout, outcome.exception

    listed, problem = step(app, "backup", "list")
    assert [(row["backup"], row["stores"]) for row in json.loads(listed)] == [(manifest.id, ["secondary"])]
    assert isinstance(problem, Unreachable)
    verified, problem = step(app, "backup", "verify")
    assert {check["store"] for check in json.loads(verified) if not check["ok"]} == {"primary"}
    assert isinstance(problem, Unreachable | CheckFailed)
    restored, problem = step(app, "backup", "restore", "--from", "secondary")
    assert problem is None
    assert json.loads(restored)["rows"] == sum(table.rows for table in manifest.tables.values())
    with psycopg.connect(target_url) as connection:
        [(stored,)] = connection.execute("SELECT email FROM customers WHERE tenant = 'acme'").fetchall()

    # The tenant's key is asked for where it still is. Nothing of what was in memory before is used.
    place = ("--tenant", "acme", "--table", "customers", "--field", "email", "--row", "7000")
    assert step(fle, "fle", "decrypt", *place, given=stored) == ("ana@example.com", None)
    made = FieldCipher.from_outputs(stage, target_url, table="customers")
    again = made.encrypt("acme", "email", 7_001, "bo@example.com")
    assert made.decrypt("acme", "email", 7_001, again) == "bo@example.com"

    # The region is back, without what was written meanwhile.
    meanwhile = back_up(stage, open_stores(stage.backups), database_url)
    assert not meanwhile.whole
    clouds.lost_regions = set()
    assert CliRunner().invoke(app, ["complete"]).exception is None
    assert all(check["ok"] for check in json.loads(step(app, "backup", "verify")[0]))
    assert step(app, "backup", "drill")[1] is None
    clouds.close()
