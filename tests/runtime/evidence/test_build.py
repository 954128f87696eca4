"""Building a pack of a stage in which secrets and personal data were planted: none of them is in it."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from kilo.backup.stores import Lock, open_store
from kilo.backup.stores.base import AlreadyExists
from kilo.errors import CheckFailed
from kilo.evidence import build as building
from kilo.evidence import pack
from kilo.evidence.build import Request, build, lock_away
from kilo.evidence.chain import LOG
from kilo.evidence.cleaning import Cleaner
from kilo.evidence.graphs import Graph, draw
from kilo.fle.audit.log import append
from kilo.fle.audit.store import S3Store
from kilo.goals.figures import Looking
from kilo.goals.measure import Measure
from kilo.observe.prometheus import Prometheus

from .conftest import AUDIT_KEY, PEOPLE, Stage

PUBLIC = AUDIT_KEY.public_key().public_bytes_raw()
KEYS = {name: [key.public_key().public_bytes_raw()] for name, key in PEOPLE.items() if name != "stranger"}
MAIL, PHONE, PERSON = "ada.lovelace@example.org", "+44 20 7946 0958", "Ada Lovelace"
TOKEN, PASSWORD, URL = (
    "ghp_" + "a1B2" * 9,
    "correct-horse-battery",
    "https://ops:hunter2hunter2@grafana.example",
)
PLANTED = (MAIL, PHONE, PERSON, TOKEN, PASSWORD, "hunter2hunter2", "order-of-ada", "4111111111111111")


def make(stage: Stage, **looking: Any) -> building.Built:
    @contextmanager
    def writing() -> Generator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(stage.url) as connection:
            yield connection

    now = time.time()
    with (
        Prometheus("http://127.0.0.1:9") as nobody,
        psycopg.connect(stage.url, autocommit=True) as connection,
    ):
        return build(
            Request(stage.outputs, now - 3_600, now + 1, "c0ffee", 0.001, looking.pop("updates", ())),
            Measure(nobody, "kilo", connection),
            Looking(stage.outputs, **looking),
            (S3Store(stage.outputs.audit), writing),
            AUDIT_KEY,
            Cleaner.of([PASSWORD]),
        )


def plant(stage: Stage) -> None:
    payload = json.dumps({"email": MAIL, "name": PERSON, "phone": PHONE, "card": "4111111111111111"})
    stage.sql(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
        " VALUES (%s, 'gold', 'order', 'order-of-ada', 'order.created', %s)",
        MAIL,
        payload,
    )
    stage.sql(
        "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
        " payload, headers, created_at, error,"
        " position, traceparent)"
        " VALUES ('events', 'replayed', %s, 'gold', 'order', 'order-of-ada', 'order.created', %s,"
        " '{}', now(), %s, 1, '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01')",
        MAIL,
        payload.encode(),
        f"no customer {MAIL}",
    )
    stage.sql(
        "WITH r AS (INSERT INTO ramps (stage, tenant, feature, steps, hold_seconds, minimum_requests,"
        " weight_before, weight, started_by) VALUES ('test', 'gold', 'search', '{5}', 1, 1, '0', '0', 'ana')"
        " RETURNING id) INSERT INTO ramp_steps (ramp, who, act, weight_from, weight_to, reason, program)"
        " SELECT id, 'ana', 'revert', '5', '0', %s, '1' FROM r",
        f"call {PHONE}, password={PASSWORD}, see {URL}",
    )
    with psycopg.connect(stage.url) as connection:
        append(connection, "ana", "ramp-revert", "ramp/test/gold/search", {"reason": f"asked for by {MAIL}"})
        append(connection, "ana", "rewrap", "tenant/gold", {"count": 1})


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_nothing_planted_is_in_the_pack_and_the_pack_holds(stage: Stage) -> None:
    plant(stage)
    updates = [
        {
            "version": 1,
            "kind": "update",
            "result": "succeeded",
            "message": f"asked by {MAIL}",
            "environment": {"git.head": "c0ffee", "git.author.email": MAIL, "git.author": PERSON},
            "config": {"kilo:x": {"value": PASSWORD}},
        }
    ]
    previews = [{"service": "orders", "seconds": 1, "ended_at": time.time(), "checks": [], "log": TOKEN}]
    made = make(stage, updates=updates, previews=previews)
    for name, data in members(made.data).items():
        for secret in PLANTED:
            assert secret.encode() not in data, (name, secret)
    found = pack.check(made.data, "test", PUBLIC, KEYS)
    assert (found.problems, found.entries) == ([], 2)
    assert found.manifest["withheld"] == 1
    log = found.members[LOG].decode().splitlines()
    assert log[0].startswith('{"withheld":"')
    report = found.members[pack.REPORT].decode()
    assert "SOAK TIMES SCALED BY 0.001" in report
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in report  # the trace, by which a replay is found again
    assert json.loads(found.members["data/replays.json"])["rows"][0]["state"] == "replayed"


def test_what_can_not_be_read_is_in_the_report_as_not_known(stage: Stage) -> None:
    found = pack.check(make(stage).data, "test", PUBLIC, KEYS)
    goals = {row["goal"]: row for row in json.loads(found.members["data/goals.json"])["rows"]}
    assert goals["mirror-lag"]["verdict"] == "unknown"
    assert "does not answer" in found.members[pack.REPORT].decode()


def test_what_cleaning_missed_stops_the_build(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(stage)
    monkeypatch.setattr(Cleaner, "clean", lambda _, value: value)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(CheckFailed) as caught:
        make(stage)
    assert "data/ramps.json: holds a telephone number" in str(caught.value)
    assert PHONE not in str(caught.value)


def test_a_log_that_was_rewritten_is_not_signed_into_a_pack(stage: Stage) -> None:
    plant(stage)
    make(stage)
    stage.past_triggers("UPDATE fle_audit SET entry = replace(entry, 'ana', 'eve') WHERE seq = 1")
    with pytest.raises(CheckFailed, match="the log is not what checkpoint"):
        make(stage)


def test_a_pack_lies_locked_and_is_never_overwritten(stage: Stage) -> None:
    bucket = stage.outputs.audit.model_copy(update={"bucket": f"vault-{stage.outputs.audit.bucket}"[:63]})
    stage.s3.create_bucket(
        Bucket=bucket.bucket,
        CreateBucketConfiguration={"LocationConstraint": bucket.location},
        ObjectLockEnabledForBucket=True,
    )
    stage.s3.put_object_lock_configuration(
        Bucket=bucket.bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    location, lock = lock_away(open_store(bucket), "test", "a.zip", b"first")
    assert location == f"s3://{bucket.bucket}/acceptance/test/a.zip"
    assert lock.mode == "governance"
    assert lock.until
    assert lock.until > datetime.now(UTC)
    with pytest.raises(AlreadyExists):
        lock_away(open_store(bucket), "test", "a.zip", b"second")
    (version,) = stage.s3.list_object_versions(Bucket=bucket.bucket)["Versions"]
    with pytest.raises(Exception, match="AccessDenied"):
        stage.s3.delete_object(Bucket=bucket.bucket, Key=version["Key"], VersionId=version["VersionId"])


def test_where_a_pack_lies_is_in_the_audit_log(stage: Stage) -> None:
    made = make(stage)

    @contextmanager
    def writing() -> Generator[psycopg.Connection[tuple[Any, ...]]]:
        with psycopg.connect(stage.url) as connection:
            yield connection

    building.record(writing, "ana", made, ("s3://b/k", Lock("governance", None, datetime.now(UTC))), "test")
    again = pack.check(make(stage).data, "test", PUBLIC, KEYS)
    assert again.problems == []
    (row,) = [
        row
        for row in json.loads(again.members["data/gates.json"])["rows"]
        if row["what"] == "promotion-evidence"
    ]
    assert row["who"] == "ana"
    assert made.manifest_sha256 in again.members[LOG].decode()


def test_names_of_others_are_text_and_no_markup() -> None:
    line = {"label": "<script>alert(1)</script>", "values": [1.0, None, 2.0]}
    drawn = draw(Graph("p", '"><img src=x>', "s", [0, 15, 30], [line], 0, {}))
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert "&lt;script&gt;" in drawn


@pytest.mark.parametrize("values", [[None, None], []])
def test_a_graph_of_nothing_says_so(values: list[None]) -> None:
    graph = Graph("p", "t", "s", [0, 15], [{"label": "a", "values": values}], 0, {})
    assert "Nothing was recorded" in draw(graph)
