"""Plain text that looks encrypted doesn't hold a rotation up for ever: it is named, and two people decide."""

from __future__ import annotations

import json

import psycopg
import pytest

from kilo.contract import EncryptedTable
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import read
from kilo.fle.audit.signatures import check_signatures
from kilo.fle.formats import DocumentRow, is_encrypted
from kilo.fle.rotation.lookalikes import Place
from kilo.fle.rotation.steps import Rotations

from .conftest import PEOPLE, Stage
from .test_audit_signatures import KEYS
from .test_cli import Kilo, kilo
from .test_rotation import TABLE, approve, approved, fill, quiet
from .test_scope import configured

__all__ = ["kilo"]

V1_ALIKE = "AQ" + "A" * 40 + "=="
ACTIVE_ALIKE = "AgEAAAAB" + "A" * 96
SIV_ALIKE = "AgIAAAAJ" + "A" * 32
ALIKE = {1: V1_ALIKE, 2: ACTIVE_ALIKE, 3: SIV_ALIKE}
TWO = ("approver.one", "approver.two")


def steps(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


def decide(stage: Stage, plan: str, place: Place, *names: str) -> list[int]:
    return [steps(stage).take_as_plain(plan, place, name, PEOPLE[name]) for name in names or TWO]


@pytest.fixture
def adopting(stage: Stage) -> tuple[Stage, str]:
    """A rotation that adopts plain addresses, of which three look encrypted, and can't go on."""
    stage.cipher().keyring.writer("gold")
    stage.sql(TABLE)
    for row in range(1, 6):
        value = ALIKE.get(row, f"user{row}@example.com")
        stage.sql("INSERT INTO customers VALUES (%s, 'gold', %s, '{}')", row, value)
    assert all(map(is_encrypted, ALIKE.values()))
    plan = approved(stage, steps(stage), "adopt").digest()
    assert steps(stage).run(plan, "tester", quiet)[1]
    with pytest.raises(CheckFailed, match="can't be decrypted"):
        steps(stage).verify(plan, "tester")
    return stage, plan


def test_what_two_people_take_as_plain_is_encrypted_as_it_stands(adopting: tuple[Stage, str]) -> None:
    stage, plan = adopting
    for row in ALIKE:
        assert decide(stage, plan, Place("customers", "email", str(row))) == [1, 2]
    done, failed = steps(stage).run(plan, "tester", quiet)
    assert (done, failed) == (True, [])
    steps(stage).verify(plan, "tester")
    steps(stage).finalize(plan, "requester", PEOPLE["requester"])
    cipher = stage.cipher()
    for row, value in stage.sql("SELECT id, email FROM customers"):
        assert cipher.decrypt("gold", "email", row, value) == ALIKE.get(row, f"user{row}@example.com")
    with psycopg.connect(stage.url) as connection:
        assert check_signatures(read(connection), "test", KEYS)[1] == []


def test_a_rollback_leaves_them_as_they_were(adopting: tuple[Stage, str]) -> None:
    stage, plan = adopting
    for row in ALIKE:
        decide(stage, plan, Place("customers", "email", str(row)))
    steps(stage).run(plan, "tester", quiet)
    # One that nobody had converted before it was turned back.
    stage.sql("UPDATE customers SET email = %s WHERE id = 1", V1_ALIKE)
    approve(stage, steps(stage), plan, rollback=True)
    before = steps(configured(stage))
    before.begin_rollback(plan, "requester", PEOPLE["requester"])
    assert before.run(plan, "tester", quiet) == (True, [])
    before.end_rollback(plan, "tester")
    assert dict(stage.sql("SELECT id, email FROM customers WHERE id <= 3")) == ALIKE


def test_one_person_is_not_enough_and_neither_is_the_requester_or_another_text(
    adopting: tuple[Stage, str],
) -> None:
    stage, plan = adopting
    place = Place("customers", "email", "1")
    with pytest.raises(CheckFailed, match="requested"):
        decide(stage, plan, place, "requester")
    assert decide(stage, plan, place, "approver.one", "approver.one") == [1, 1]
    assert len(steps(stage).run(plan, "tester", quiet)[1]) == 2
    decide(stage, plan, place, "approver.two")
    # The insider puts another text there, and that text elsewhere: neither is what was signed.
    stage.sql("UPDATE customers SET email = %s WHERE id = 1", SIV_ALIKE)
    stage.sql("UPDATE customers SET email = %s WHERE id = 3", V1_ALIKE)
    assert len(steps(stage).run(plan, "tester", quiet)[1]) == 2


def test_only_a_value_that_looks_encrypted_and_does_not_read_is_decided_on(
    adopting: tuple[Stage, str],
) -> None:
    stage, plan = adopting
    for place, error, text in [
        (Place("customers", "email", "4"), CheckFailed, "is an encrypted value that reads"),
        (Place("customers", "email", "99"), BadInput, "has no value"),
        (Place("customers", "email", "x"), BadInput, "has no value"),
        (Place("orders", "email", "1"), BadInput, "--table"),
    ]:
        with pytest.raises(error, match=text):
            decide(stage, plan, place)


def test_a_released_value_that_looks_encrypted_stays_as_it_reads(stage: Stage) -> None:
    fill(stage, stage.cipher(), rows=3)
    stored = stage.cipher().encrypt("gold", "email", 1, V1_ALIKE)
    stage.sql("UPDATE customers SET email = %s WHERE id = 1", stored)
    plan = approved(stage, steps(stage), "release").digest()
    after = configured(stage)
    assert steps(after).run(plan, "tester", quiet)[1]
    decide(after, plan, Place("customers", "email", "1"))
    assert steps(after).run(plan, "tester", quiet) == (True, [])
    steps(after).verify(plan, "tester")
    steps(after).finalize(plan, "requester", PEOPLE["requester"])
    assert stage.sql("SELECT email FROM customers WHERE id = 1") == [(V1_ALIKE,)]


def test_inside_a_document_and_by_command(stage: Stage, kilo: Kilo) -> None:
    names = {"table": "events", "context": "events", "row_column": "fingerprint"}
    table = EncryptedTable.model_validate({**names, "documents": {"payload": ["email"]}})
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (table,)})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    (kilo.folder / "outputs.json").write_text(stage.outputs.model_dump_json())
    stage.sql(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
        " VALUES ('gold/1', 'gold', 'order', '1', 'order.paid', %s)",
        json.dumps({"owner": {"email": SIV_ALIKE}}),
    )
    plan = approved(stage, steps(stage), "adopt").digest()
    refused = kilo("rotate", "run", plan, code=1)
    assert b"take-as-plain" in refused.stderr
    assert b"gold/1/owner" in refused.stderr
    place = ("--table", "events", "--field", "email", "--row", "gold/1", "--pointer", "/owner")
    for number, name in enumerate(TWO, 1):
        who = ("--as", name, "--signing-key", f"{name}.pem")
        assert f"by {number} of 2".encode() in kilo("rotate", "take-as-plain", plan, *place, *who).stdout
    kilo("rotate", "run", plan)
    stored = stage.sql("SELECT payload #>> '{owner,email}' FROM events")[0][0]
    row = DocumentRow("gold/1", "/owner")
    assert stage.cipher("events").decrypt("gold", "email", row, stored) == SIV_ALIKE
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    assert b"problems: 0" in kilo("audit", "verify").stdout
