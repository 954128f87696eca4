"""The administrator's URL from Secrets Manager: whose it is, and what is said of one that is no good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from kilo.contract import DatabaseOutputs
from kilo.database.administrator import administrator_url
from kilo.errors import BadInput, Unreachable
from tests.commands import Commands
from tests.runtime.fle.conftest import Stage, aws, moto_url, stage

__all__ = ["aws", "moto_url", "stage"]

PLACE = DatabaseOutputs(host="db.example", port=5433, name="kilo", role_secrets={})
URL = "postgresql://admin:correct-horse@db.example:5433/kilo?sslmode=require"
NAME = "kilo/test/database-url"


@pytest.fixture
def secrets(aws: str) -> Any:
    client = boto3.client("secretsmanager", endpoint_url=aws, region_name="eu-central-1")
    yield client
    client.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)


def test_white_space_around_it_is_no_part_of_it(secrets: Any) -> None:
    """A file that an editor wrote ends in a newline, and the secret that is made of it as well."""
    secrets.create_secret(Name=NAME, SecretString=f" {URL}\n")
    assert administrator_url(NAME, PLACE) == URL


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (URL.replace("db.example", "other.example"), "another host than"),
        (URL.replace("/kilo", "/other"), "another database than"),
        (URL.replace(":5433", ""), "another port than"),
        ("postgresql://admin:correct-horse/x@db.example:5433/kilo", "no URL of a PostgreSQL user"),
        ("postgresql://admin:x@correct-horse@db.example:5433/kilo", "another host than"),
        (URL.replace("postgresql:", "mysql:"), "no URL of a PostgreSQL user"),
        ("postgresql://db.example:5433/kilo", "no URL of a PostgreSQL user"),
        (f"{URL}&host=other.example", "another host than"),
        (f"{URL}&dbname=other", "another database than"),
        (URL.replace("@", "@one.example,"), "another host and port than"),
        (URL.replace("5433", "correct-horse"), "another port than"),
        ("postgresql://admin:correct-horse@[db.example/kilo", "no URL of a PostgreSQL user"),
        ("correct-horse", "no URL of a PostgreSQL user"),
        (b"correct-horse", "binary"),
    ],
)
def test_another_databases_or_none_is_refused_without_a_word_of_it(
    secrets: Any, value: str | bytes, said: str
) -> None:
    kind = "SecretBinary" if isinstance(value, bytes) else "SecretString"
    secrets.create_secret(Name=NAME, **{kind: value})
    with pytest.raises(BadInput) as caught:
        administrator_url(NAME, PLACE)
    assert said in str(caught.value)
    assert NAME in str(caught.value)
    assert "correct-horse" not in str(caught.value)


def test_one_that_is_not_there_or_has_no_value_is_told_apart_from_aws_that_is_away(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"secret kilo/test/nowhere: .*ResourceNotFound.*prerequisites"):
        administrator_url("kilo/test/nowhere", PLACE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unreachable, match="does not answer"):
        administrator_url(NAME, PLACE)


def test_the_job_migrates_by_the_secret_and_a_url_at_hand_goes_first(
    secrets: Any, stage: Stage, commands: Commands, tmp_path: Path
) -> None:
    at = urlsplit(stage.url)
    place = {"host": at.hostname, "port": at.port, "name": at.path.removeprefix("/")}
    database = stage.outputs.database.model_copy(update=place)
    outputs = tmp_path / "outputs.json"
    outputs.write_text(stage.outputs.model_copy(update={"database": database}).model_dump_json())
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        "KILO_OUTPUTS": str(outputs),
        "DATABASE_URL_SECRET": NAME,
    }

    def migrate(**more: str) -> tuple[int, str]:
        done = commands.run("db", "migrate", env=environment | more, cwd=tmp_path)
        return done.returncode, done.stderr.decode()

    secrets.create_secret(Name=NAME, SecretString=stage.url)
    assert migrate() == (0, "")
    secrets.put_secret_value(SecretId=NAME, SecretString=URL)
    code, said = migrate()
    assert (code, "another host" in said, "correct-horse" in said) == (2, True, False)
    # As in a region that is lost, with its secrets.
    assert migrate(DATABASE_URL=stage.url, AWS_ENDPOINT_URL="http://127.0.0.1:9") == (0, "")
