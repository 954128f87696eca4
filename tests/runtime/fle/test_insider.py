"""Whoever writes rows past the roles, when it would pay: they gain nothing, or are named."""

from __future__ import annotations

import psycopg
import pytest

from kilo.errors import CheckFailed
from kilo.fle import CacheLimits, FieldCipher, errors
from kilo.fle.audit import log
from kilo.fle.audit.states import check_states
from kilo.fle.audit.store import FolderStore
from kilo.fle.audit.verify import checkpoint
from kilo.fle.formats import is_encrypted
from kilo.fle.keytable import DATA
from kilo.fle.rotation.record import find
from kilo.fle.rotation.steps import Rotations

from .conftest import AUDIT_KEY, PEOPLE, Stage, url_of
from .test_rotation import TABLE, approved, fill, quiet, read_all


def steps(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


def contradictions(stage: Stage) -> list[str]:
    with psycopg.connect(stage.url) as connection:
        return check_states(connection, log.read(connection))


def shared(stage: Stage) -> Stage:
    """The stage, where the two tenants have one KMS key between them."""
    gold = stage.outputs.tenants["gold"]
    second = stage.outputs.tenants["second"].model_copy(update={"encryption_key": gold.encryption_key})
    outputs = stage.outputs.model_copy(update={"tenants": {**stage.outputs.tenants, "second": second}})
    return Stage(outputs, stage.url, stage.kms, stage.s3)


def exchange_wraps(stage: Stage) -> None:
    """Between keys 1 and 2, with the digests that they open to."""
    for change in ("-key_id", "3 + key_id"):
        stage.past_triggers(f"UPDATE fle_wraps SET key_id = {change}")
    digests = stage.sql("SELECT 3 - id, digest FROM fle_keys")
    stage.past_triggers("UPDATE fle_keys SET digest = NULL")
    for key_id, digest in digests:
        stage.past_triggers("UPDATE fle_keys SET digest = %s WHERE id = %s", digest, key_id)


def test_tenants_with_one_kms_key_and_equal_versions_can_not_have_their_keys_changed_about(
    stage: Stage,
) -> None:
    both = shared(stage)
    mine = {tenant: both.cipher().encrypt(tenant, "email", 1, tenant) for tenant in ("gold", "second")}
    # The wraps, with the digests that they open to; then the rows themselves under the other tenant's name.
    exchange_wraps(both)
    for tenant, value in mine.items():
        with pytest.raises(errors.WrapNotAuthentic):
            both.cipher().decrypt(tenant, "email", 1, value)
        with pytest.raises(errors.WrapNotAuthentic):
            both.cipher().encrypt(tenant, "email", 1, "x")
    exchange_wraps(both)
    for change in ("tenant || '.'", "CASE tenant WHEN 'gold.' THEN 'second' ELSE 'gold' END"):
        both.past_triggers(f"UPDATE fle_keys SET tenant = {change}")
    for tenant in mine:
        with pytest.raises(errors.WrapNotAuthentic):
            both.cipher().encrypt(tenant, "email", 1, "x")


def test_signatures_under_an_ended_plan_approve_no_new_one(stage: Stage) -> None:
    fill(stage, stage.cipher(), rows=3)
    old = approved(stage, steps(stage)).digest()
    steps(stage).begin_rollback(old, "requester", PEOPLE["requester"])
    new = steps(stage).plan("gold", "rekey", "requester", PEOPLE["requester"]).digest()
    stage.sql(
        "INSERT INTO fle_rotation_approvals (plan_hash, action, principal, public_key, statement, signature)"
        " SELECT %s, action, principal, public_key, replace(statement, plan_hash, %s), signature"
        " FROM fle_rotation_approvals WHERE plan_hash = %s",
        new,
        new,
        old,
    )
    with pytest.raises(CheckFailed, match="needs 2 approvals"):
        steps(stage).run(new, "tester", quiet)
    # The ended plan itself, which has its approvals.
    stage.past_triggers("UPDATE fle_rotations SET state = 'rolled-back' WHERE plan_hash = %s", new)
    stage.past_triggers("UPDATE fle_rotations SET state = 'planned' WHERE plan_hash = %s", old)
    assert any("the log says rolled-back" in each for each in contradictions(stage))


def test_a_rotation_is_not_led_to_another_key_than_it_made(stage: Stage) -> None:
    cipher = stage.cipher()
    plain = fill(stage, cipher, rows=3)
    given = cipher.keyring.create("gold", DATA, "retiring", bytearray(b"k" * 32))
    plan = approved(stage, steps(stage)).digest()
    steps(stage).start(plan, "tester")
    stage.sql("UPDATE fle_rotations SET new_key_id = %s WHERE plan_hash = %s", given, plan)
    for step in (
        lambda: steps(stage).run(plan, "tester", quiet),
        lambda: steps(stage).verify(plan, "tester"),
        lambda: steps(stage).begin_rollback(plan, "requester", PEOPLE["requester"]),
    ):
        with pytest.raises(CheckFailed, match="is not the active one of gold"):
            step()
    # Going back to it would bring format v1: that takes two, whatever the row says of the key before.
    stage.sql("UPDATE fle_rotations SET old_key_id = %s WHERE plan_hash = %s", given, plan)
    with pytest.raises(CheckFailed, match="is not the active one of gold"):
        steps(stage).begin_rollback(plan, "requester", PEOPLE["requester"])
    assert any(f"leads to key {given}, and the log says" in each for each in contradictions(stage))
    assert not any(value.startswith("AQ") for (value,) in stage.sql("SELECT email FROM customers"))
    assert read_all(stage, stage.cipher()) == plain


def test_scope_rows_that_vanish_while_a_field_is_adopted_finish_nothing(stage: Stage) -> None:
    stage.cipher().keyring.writer("gold")
    stage.sql(TABLE)
    stage.sql("""INSERT INTO customers VALUES (1, 'gold', 'ana@example.com', '{"phone": "+4670"}')""")
    plan = approved(stage, steps(stage), "adopt").digest()
    steps(stage).start(plan, "tester")
    stage.sql("DELETE FROM fle_scope WHERE field = 'email'")
    with pytest.raises(CheckFailed, match="email came into the configuration since"):
        steps(stage).verify(plan, "tester")
    stage.sql("UPDATE fle_scope SET encrypted = false")
    assert is_encrypted(str(stage.cipher().protect("gold", {"phone": "+4671"}, 2)["phone"]))
    steps(stage).run(plan, "tester", quiet)
    steps(stage).verify(plan, "tester")
    steps(stage).finalize(plan, "requester", PEOPLE["requester"])
    assert all(map(is_encrypted, stage.sql("SELECT email, details ->> 'phone' FROM customers")[0]))
    assert contradictions(stage) == []


def test_an_invented_size_silences_no_check_of_the_log(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    store = FolderStore(tmp_path_factory.mktemp("store"))
    with psycopg.connect(url_of(stage, "kilo_auditor")) as connection:
        # So that monitors see nothing that waits to be signed.
        connection.execute("INSERT INTO fle_checkpoints (size) VALUES (1000000)")
    assert stage.sql("SELECT FROM fle_audit_unsigned") == []
    with psycopg.connect(stage.url) as connection:
        with pytest.raises(CheckFailed, match="1000000 were signed: its end was cut off"):
            checkpoint(connection, store, "test", AUDIT_KEY)
        with pytest.raises(psycopg.errors.RaiseException):
            connection.execute("DELETE FROM fle_checkpoints")


def test_a_lock_that_any_role_may_take_keeps_the_key_maker_for_no_longer_than_it_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_PATIENCE_SECONDS", 1)
    maker = FieldCipher.from_outputs(stage.outputs, url_of(stage, "kilo_keymaker"), table="customers")
    with psycopg.connect(url_of(stage, "kilo_worker")) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('fle-audit', 0))")
        with pytest.raises(CheckFailed, match="held by role kilo_worker, process"):
            maker.keyring.create("gold", DATA, "active")
        assert stage.sql("SELECT FROM fle_keys") == []
    maker.keyring.create("gold", DATA, "active")


def test_a_stale_writer_past_its_settle_time_writes_nothing_that_is_lost(stage: Stage) -> None:
    """Its plan's time was set back by whoever owns the database, so that finalize came too early."""
    fill(stage, stage.cipher(), rows=3)
    stale = stage.cipher(limits=CacheLimits(reserve_messages=1))
    stale.encrypt("gold", "email", 1, "x")
    plan = approved(stage, steps(stage), settle=1500).digest()
    steps(stage).run(plan, "tester", quiet)
    steps(stage).verify(plan, "tester")
    with pytest.raises(CheckFailed, match="writers may use the old key"):
        steps(stage).finalize(plan, "requester", PEOPLE["requester"])
    stage.sql("UPDATE fle_rotations SET switched_at = switched_at - interval '90 days'")
    steps(stage).finalize(plan, "requester", PEOPLE["requester"])
    with pytest.raises(errors.KeyRetired):
        stale.encrypt("gold", "email", 1, "x")
    with psycopg.connect(stage.url) as connection:
        assert find(connection, plan).state == "finalized"
    assert stale.decrypt("gold", "email", 1, stale.encrypt("gold", "email", 1, "x")) == "x"
