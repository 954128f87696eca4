"""Fields that come into the configuration or leave it without a plan: nothing leaks or is lost, all shows."""

from __future__ import annotations

import json
import logging

import psycopg
import pytest
from prometheus_client import REGISTRY

from kilo.errors import CheckFailed
from kilo.fle import AsyncFieldCipher, CacheLimits, errors, scope
from kilo.fle.errors import KeyTableUnavailable
from kilo.fle.formats import DocumentRow, is_encrypted
from kilo.fle.rotation.steps import Rotations
from kilo.fle.upkeep import EncryptionUpkeep
from kilo.sensitive import hide, reveal
from tests.commands import Commands

from .conftest import PEOPLE, Stage
from .test_cli import Kilo
from .test_rotation import TABLE, approve, approved, fill, quiet, read_all

PAYLOAD = {"email": "ana@example.com", "owner": {"phone": "+46701234567"}}


def configured(stage: Stage, *fields: str, tenant: str = "gold") -> Stage:
    """The stage after a `pulumi up` that changed the tenant's ``encrypted_fields``."""
    changed = stage.outputs.tenants[tenant].model_copy(update={"encrypted_fields": fields})
    tenants = {**stage.outputs.tenants, tenant: changed}
    outputs = stage.outputs.model_copy(update={"tenants": tenants})
    return Stage(outputs, stage.url, stage.kms, stage.s3)


def rotations(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


@pytest.fixture(autouse=True)
def _warnings_again() -> None:  # pyright: ignore[reportUnusedFunction] - pytest uses it
    scope._warned.clear()  # pyright: ignore[reportPrivateUsage]


def test_a_field_that_left_the_configuration_is_encrypted_and_read_as_before(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    plain = fill(stage, stage.cipher())
    after = configured(stage, "email").cipher()
    assert read_all(stage, after) == plain
    assert after.protected_fields("gold") == {"email", "phone"}
    record = after.protect("gold", {"id": 1, "email": "a", "phone": "b"}, 1)
    assert is_encrypted(str(record["phone"]))
    assert is_encrypted(after.encrypt("gold", "phone", 2, "b"))
    assert after.reveal("gold", record, 1) == {"id": 1, "email": "a", "phone": "b"}
    said = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("gold/phone lies encrypted")
    assert "kilo fle rotate plan --tenant gold --kind release --field phone" in said[0]


async def test_events_of_a_tenant_that_left_are_hidden_and_revealed_as_before(stage: Stage) -> None:
    before = AsyncFieldCipher(stage.cipher("events"))
    stored = await hide(before, "gold", "gold/1", PAYLOAD)
    after = AsyncFieldCipher(configured(stage).cipher("events"))
    assert await reveal(after, "gold", "gold/1", stored) == PAYLOAD
    again = await hide(after, "gold", "gold/2", PAYLOAD)
    assert is_encrypted(again["email"])
    assert is_encrypted(again["owner"]["phone"])


def test_a_tenant_that_never_was_in_scope_stays_plain(stage: Stage) -> None:
    cipher = stage.cipher()
    assert cipher.protect("plain", PAYLOAD, 1) == PAYLOAD
    assert cipher.reveal("plain", PAYLOAD, 1) == PAYLOAD
    with pytest.raises(errors.OutOfScope):
        cipher.encrypt("plain", "email", 1, "x")


def test_a_process_that_has_its_keys_in_memory_learns_of_a_field_within_their_age(stage: Stage) -> None:
    late = configured(stage, "email").cipher(limits=CacheLimits(max_age_seconds=0.0))
    assert late.protected_fields("gold") == {"email"}
    stage.cipher().encrypt("gold", "phone", 1, "x")
    assert late.protected_fields("gold") == {"email", "phone"}


def test_encryption_goes_on_when_the_scope_can_not_be_noted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cipher = stage.cipher()

    def refuse(tenant: str, field: str) -> None:
        raise KeyTableUnavailable(tenant, field)

    monkeypatch.setattr(cipher.keyring.table, "note_scope", refuse)
    assert cipher.decrypt("gold", "email", 1, cipher.encrypt("gold", "email", 1, "x")) == "x"
    assert "gold/email: not noted as encrypted" in caplog.text


def test_a_release_of_one_field_leaves_the_others_encrypted(stage: Stage) -> None:
    plain = fill(stage, stage.cipher())
    plan = rotations(stage).plan("gold", "release", "requester", PEOPLE["requester"], 0, fields=["phone"])
    approve(stage, rotations(stage), plan.digest())
    after = configured(stage, "email")
    steps = rotations(after)
    assert steps.run(plan.digest(), "tester", quiet) == (True, [])
    assert stage.sql("SELECT details ->> 'phone' FROM customers WHERE id = 3") == [(plain[3][1],)]
    steps.verify(plan.digest(), "tester")
    steps.finalize(plan.digest(), "requester", PEOPLE["requester"])
    cipher = after.cipher()
    assert cipher.protected_fields("gold") == {"email"}
    stored = stage.sql("SELECT email FROM customers WHERE id = 3")[0][0]
    assert cipher.decrypt("gold", "email", 3, stored) == plain[3][0]
    assert cipher.reveal("gold", {"phone": plain[3][1]}, 3) == {"phone": plain[3][1]}


def test_a_release_that_is_rolled_back_keeps_the_scope(stage: Stage) -> None:
    plain = fill(stage, stage.cipher())
    plan = approved(stage, rotations(stage), "release").digest()
    steps = rotations(configured(stage))
    steps.run(plan, "tester", quiet)
    steps.begin_rollback(plan, "requester", PEOPLE["requester"])
    steps.run(plan, "tester", quiet)
    steps.end_rollback(plan, "tester")
    cipher = configured(stage).cipher()
    assert read_all(stage, cipher) == plain
    assert cipher.protected_fields("gold") == {"email", "phone"}


def test_an_adoption_that_is_rolled_back_leaves_encrypted_what_was_before_it(stage: Stage) -> None:
    before = configured(stage, "email")
    stage.sql(TABLE)
    stored = before.cipher().encrypt("gold", "email", 1, "ana@example.com")
    stage.sql("""INSERT INTO customers VALUES (1, 'gold', %s, '{"phone": "+4670"}')""", stored)
    plan = approved(stage, rotations(before), "adopt").digest()
    steps = rotations(stage)
    assert steps.run(plan, "tester", quiet) == (True, [])
    assert is_encrypted(stage.sql("SELECT details ->> 'phone' FROM customers")[0][0])
    approve(stage, steps, plan, rollback=True)
    with pytest.raises(CheckFailed, match="phone would become plain and is among the encrypted_fields"):
        steps.begin_rollback(plan, "requester", PEOPLE["requester"])
    steps = rotations(before)
    steps.begin_rollback(plan, "requester", PEOPLE["requester"])
    steps.run(plan, "tester", quiet)
    steps.end_rollback(plan, "tester")
    ((email, phone),) = stage.sql("SELECT email, details ->> 'phone' FROM customers")
    assert phone == "+4670"
    assert before.cipher().decrypt("gold", "email", 1, email) == "ana@example.com"
    assert before.cipher().protected_fields("gold") == {"email"}


def test_an_adoption_encrypts_what_the_configuration_names_and_nothing_else(stage: Stage) -> None:
    stage.sql(TABLE)
    stage.sql("""INSERT INTO customers VALUES (1, 'plain', 'ana@example.com', '{"phone": "+4670"}')""")
    plan = rotations(stage).plan("plain", "adopt", "requester", PEOPLE["requester"], 0)
    approve(stage, rotations(stage), plan.digest())
    with pytest.raises(CheckFailed, match="none of the plan's fields in its encrypted_fields"):
        rotations(stage).run(plan.digest(), "tester", quiet)
    steps = rotations(configured(stage, "email", tenant="plain"))
    assert steps.run(plan.digest(), "tester", quiet) == (True, [])
    ((email, phone),) = stage.sql("SELECT email, details ->> 'phone' FROM customers")
    assert is_encrypted(email)
    assert phone == "+4670"
    steps.verify(plan.digest(), "tester")
    steps.finalize(plan.digest(), "requester", PEOPLE["requester"])


def test_a_rotation_reaches_documents_fields_that_left_the_configuration(stage: Stage) -> None:
    """Left under the old key, they could not be read once it is destroyed."""
    documents = {"table": "events", "context": "events", "row_column": "fingerprint"}
    names = {**documents, "documents": {"payload": ["email"]}}
    table = type(stage.outputs.field_encryption.tables[0]).model_validate(names)
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (table,)})
    cipher = stage.cipher("events")
    stored = json.dumps({"email": "a", "phone": cipher.encrypt("gold", "phone", "gold/1", "b")})
    stage.sql(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
        " VALUES ('gold/1', 'gold', 'order', '1', 'order.paid', %s)",
        stored,
    )
    outputs = configured(stage, "email").outputs.model_copy(update={"field_encryption": settings})
    steps = rotations(Stage(outputs, stage.url, stage.kms, stage.s3))
    steps.run(approved(stage, steps).digest(), "tester", quiet)
    new = stage.sql("SELECT payload ->> 'phone' FROM events")[0][0]
    assert new != json.loads(stored)["phone"]
    assert stage.cipher("events").decrypt("gold", "phone", DocumentRow("gold/1", ""), new) == "b"


def gauge(stage: Stage) -> float | None:
    EncryptionUpkeep(stage.outputs, stage.url).count()
    return REGISTRY.get_sample_value("fle_scope_mismatches")


def test_the_difference_shows_in_coverage_and_gauge_with_the_command_that_mends_it(
    commands: Commands, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fill(stage, stage.cipher())
    assert gauge(stage) == 0
    Kilo(commands, stage, tmp_path_factory.mktemp("same"))("coverage")
    left = configured(stage, "email")
    assert gauge(left) == 1
    refused = Kilo(commands, left, tmp_path_factory.mktemp("left"))("coverage", "--json", code=1)
    assert b"rotate plan --tenant gold --kind release --field phone" in refused.stderr
    assert {row["field"] for row in json.loads(refused.stdout)} == {"email", "phone"}
    with psycopg.connect(stage.url) as connection:
        connection.execute("INSERT INTO customers VALUES (99, 'plain', 'ana@example.com', '{}')")
    came = configured(stage, "email", tenant="plain")
    assert gauge(came) == 1
    refused = Kilo(commands, came, tmp_path_factory.mktemp("came"))("coverage", code=1)
    assert b"rotate plan --tenant plain --kind adopt" in refused.stderr
    with pytest.raises(errors.PlaintextFound, match="--kind adopt"):
        came.cipher().reveal("plain", {"email": "ana@example.com"}, 99)
