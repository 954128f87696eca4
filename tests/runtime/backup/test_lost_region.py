"""docs/runbooks/lost-region.md, walked: the primary store and the key's own region are gone."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import psycopg
import pytest
from typer.testing import CliRunner

from kilo.backup.cli import app
from kilo.backup.stores import open_stores
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, Unreachable
from kilo.testing.servers.ports import free_port
from tests.runtime.backup.conftest import REGION
from tests.runtime.backup.test_backup import back_up

ROOT = Path(__file__).resolve().parents[3]


def test_the_runbook(
    outputs: StackOutputs,
    filled_url: str,
    target_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kms = boto3.client("kms")
    arn = kms.create_key(MultiRegion=True)["KeyMetadata"]["Arn"]
    there = kms.replicate_key(KeyId=arn.rpartition("/")[2], ReplicaRegion="eu-west-1")
    own = outputs.backups.encryption_key.model_copy(update={"key": arn})
    replica = own.model_copy(update={"key": there["ReplicaKeyMetadata"]["Arn"]})
    signing = outputs.backups.signing_key
    assert signing
    there = kms.replicate_key(KeyId=signing.key.rpartition("/")[2], ReplicaRegion="eu-west-1")
    signing_replica = signing.model_copy(update={"key": there["ReplicaKeyMetadata"]["Arn"]})
    backups = outputs.backups.model_copy(
        update={
            "encryption_key": own,
            "encryption_key_replica": replica,
            "signing_key_replica": signing_replica,
        }
    )
    stage = outputs.model_copy(update={"backups": backups})
    manifest = back_up(stage, open_stores(backups), filled_url).manifest

    # The region is lost: nothing listens where its S3 was, and its KMS knows the key no more.
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setattr("kilo.backup.stores.s3._ATTEMPTS", 1)
    gone = own.model_copy(update={"key": arn.replace(REGION, "us-east-1")})
    lost = stage.model_copy(update={"backups": backups.model_copy(update={"encryption_key": gone})})
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(lost.model_dump(mode="json")))
    monkeypatch.setenv("KILO_OUTPUTS", str(file))
    monkeypatch.setenv("KILO_RESTORE_URL", target_url)

    def step(*arguments: str) -> tuple[str, BaseException | None]:
        assert f"kilo backup {arguments[0]}" in runbook
        outcome = CliRunner().invoke(app, [*arguments, "--json"])
        return outcome.stdout, outcome.exception

    runbook = (ROOT / "docs" / "runbooks" / "lost-region.md").read_text(encoding="utf-8")
    listed, problem = step("list")
    assert [(row["backup"], row["stores"]) for row in json.loads(listed)] == [(manifest.id, ["secondary"])]
    assert isinstance(problem, Unreachable)
    verified, problem = step("verify")
    assert {check["store"] for check in json.loads(verified) if not check["ok"]} == {"primary"}
    assert isinstance(problem, Unreachable | CheckFailed)
    restored, problem = step("restore", "--from", "secondary")
    assert problem is None
    assert json.loads(restored)["rows"] == 20_104
    with psycopg.connect(target_url) as connection:
        assert connection.execute('SELECT count(*) FROM shop."Orders"').fetchone() == (20_000,)

    # The region is back, without what was written meanwhile.
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    file.write_text(json.dumps(stage.model_dump(mode="json")))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    meanwhile = back_up(stage, open_stores(backups), filled_url)
    assert not meanwhile.whole
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert CliRunner().invoke(app, ["complete"]).exception is None
    assert all(check["ok"] for check in json.loads(step("verify")[0]))
    assert step("drill")[1] is None
