"""Rotating the index key: searches find every row at every moment, and the old key goes in the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from kilo.contract import EncryptedTable
from kilo.errors import BadInput, CheckFailed
from kilo.fle import CacheLimits, FieldCipher, errors
from kilo.fle.deterministic import BlindIndex, DeterministicColumn, make_token_before, token_v1
from kilo.fle.rotation.plan import Plan
from kilo.fle.rotation.steps import Rotations
from kilo.fle.shred import destroy_due
from tests.commands import Commands

from .conftest import PEOPLE, Stage
from .test_rotation import approve, approved, quiet
from .test_rotation_killed import BACKFILL, ENDINGS, STEPS, Killed

ROWS = 60
TABLE = """
CREATE TABLE customers
    (id bigserial PRIMARY KEY, tenant text NOT NULL, email text, email_token text, details jsonb)
"""
SPEC = EncryptedTable.model_validate(
    {
        "table": "customers",
        "context": "customers",
        "columns": {"email": "email", "phone": "details.phone"},
        "tokens": {"email": {"column": "email_token", "kind": "email"}},
    }
)


def index_of(cipher: FieldCipher) -> BlindIndex:
    return BlindIndex(cipher.keyring, "customers", "email", "email")


@pytest.fixture
def indexed(stage: Stage) -> Stage:
    """A stage with 60 customers whose e-mail addresses can be searched for."""
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (SPEC,)})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    stage.sql(TABLE)
    cipher = stage.cipher()
    for number in range(1, ROWS + 1):
        write(stage, cipher, number)
    return stage


def write(stage: Stage, cipher: FieldCipher, number: int) -> None:
    """Insert or change a row as a service does."""
    value = address(number)
    stage.sql(
        "INSERT INTO customers (id, tenant, email, email_token) VALUES (%s, 'gold', %s, %s)"
        " ON CONFLICT (id) DO UPDATE SET email = excluded.email, email_token = excluded.email_token",
        number,
        cipher.encrypt("gold", "email", number, value),
        index_of(cipher).token("gold", value),
    )


def address(number: int) -> str:
    return f"user{number}@example.com"


def found(stage: Stage, cipher: FieldCipher, value: str) -> list[int]:
    """Numbers of the rows that a search finds."""
    with psycopg.connect(stage.url) as connection:
        return found_by(connection, cipher, value)


def found_by(connection: psycopg.Connection, cipher: FieldCipher, value: str) -> list[int]:
    condition = index_of(cipher).condition("email_token", "gold", value)
    query = sql.SQL("SELECT id FROM customers WHERE {} ORDER BY id").format(condition)
    return [row[0] for row in connection.execute(query)]


def all_found(stage: Stage, cipher: FieldCipher) -> bool:
    with psycopg.connect(stage.url, autocommit=True) as connection:
        return all(found_by(connection, cipher, address(n)) == [n] for n in range(1, ROWS + 1))


def versions(stage: Stage) -> list[str]:
    rows = stage.sql("SELECT DISTINCT split_part(email_token, '.', 2) FROM customers ORDER BY 1")
    return [row[0] for row in rows]


def known(index: BlindIndex) -> int:
    """How many index versions a search looks for."""
    return len({token.split(".")[1] for token in index.tokens("gold", address(1))})


def states(stage: Stage) -> list[str]:
    rows = stage.sql("SELECT state FROM fle_keys WHERE purpose = 'field-index' ORDER BY version")
    return [row[0] for row in rows]


@pytest.fixture
def rotations(indexed: Stage) -> Rotations:
    return Rotations(indexed.outputs, indexed.url, indexed.cipher())


def test_tokens_of_the_first_normalisation_are_found_and_reindexed(
    indexed: Stage, rotations: Rotations
) -> None:
    stage = indexed
    cipher = stage.cipher()
    ((version, key),) = cipher.keyring.index_keys("gold", "customers", "email")
    for number, value in ((1, "info@straße.de"), (2, "info@strasse.de")):
        before = make_token_before(key, version, "email", value)
        stage.sql(
            "UPDATE customers SET email = %s, email_token = %s WHERE id = %s",
            cipher.encrypt("gold", "email", number, value),
            before,
            number,
        )
    # The first normalisation took the two for one.
    assert found(stage, cipher, "info@straße.de") == found(stage, cipher, "info@strasse.de") == [1, 2]
    plan = approved(stage, rotations, "reindex").digest()
    assert rotations.run(plan, "tester", quiet) == (True, [])
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert found(stage, stage.cipher(), "info@straße.de") == [1]
    assert found(stage, stage.cipher(), "info@strasse.de") == [2]
    assert {row[0] for row in stage.sql("SELECT left(email_token, 4) FROM customers")} == {"3.2."}


def test_tokens_move_to_the_new_key_and_the_old_one_is_destroyed(
    indexed: Stage, rotations: Rotations
) -> None:
    stage = indexed
    # What is no token of ours, or none at all, is left alone.
    stage.sql("UPDATE customers SET email_token = %s WHERE id = 1", token_v1(b"k" * 32, address(1)))
    stage.sql("UPDATE customers SET email_token = NULL WHERE id = 2")
    plan = approved(stage, rotations, "reindex").digest()
    assert rotations.run(plan, "tester", quiet, batch_rows=7) == (True, [])
    assert versions(stage)[:2] == ["", "2"]
    assert rotations.verify(plan, "tester") == {"values": ROWS - 2, "failed": 0, "same": ROWS - 2}
    write(stage, stage.cipher(), 1)
    write(stage, stage.cipher(), 2)
    assert all_found(stage, stage.cipher())
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert states(stage) == ["retired", "active"]
    assert known(index_of(stage.cipher())) == 1
    assert all_found(stage, stage.cipher())
    stage.sql("UPDATE fle_keys SET destroy_after = now() WHERE state = 'retired'")
    with psycopg.connect(stage.url) as connection:
        assert len(destroy_due(connection, "tester")) == 1
    assert states(stage) == ["destroyed", "active"]
    assert all_found(stage, stage.cipher())
    assert stage.sql("SELECT count(*) FROM fle_keys WHERE purpose = 'field-data' AND state = 'active'") == [
        (1,)
    ]


def test_searches_know_the_new_key_before_the_first_token_is_written_under_it(
    indexed: Stage, rotations: Rotations
) -> None:
    plan = rotations.plan("gold", "reindex", "requester", PEOPLE["requester"], 1000).digest()
    approve(indexed, rotations, plan)
    with pytest.raises(CheckFailed, match="searches learn of the new index key within 1000 s"):
        rotations.run(plan, "tester", quiet)
    assert states(indexed) == ["active", "pending"]
    reader = indexed.cipher()
    assert known(index_of(reader)) == 2
    write(indexed, indexed.cipher(), 1)
    assert versions(indexed) == ["1"]
    indexed.sql("UPDATE fle_rotations SET switched_at = now() - interval '1001 seconds'")
    assert rotations.run(plan, "tester", quiet) == (True, [])
    assert all_found(indexed, reader)
    rotations.verify(plan, "tester")
    with pytest.raises(CheckFailed, match="writers may use the old key"):
        rotations.finalize(plan, "requester", PEOPLE["requester"])


def test_readers_find_and_writers_write_while_it_runs(indexed: Stage, rotations: Rotations) -> None:
    stage = indexed
    plan = rotations.plan("gold", "reindex", "requester", PEOPLE["requester"], 1000).digest()
    approve(stage, rotations, plan)
    with pytest.raises(CheckFailed):
        rotations.start(plan, "tester")
    # Both have their keys in memory: the reader knows the pending one, the writer writes under the old one.
    old_writer, reader = (
        stage.cipher(limits=CacheLimits(max_age_seconds=1200, outage_seconds=0)) for _ in range(2)
    )
    write(stage, old_writer, 1)
    assert all_found(stage, reader)
    stop, wrong = threading.Event(), list[object]()

    def search() -> None:
        number = 0
        while not stop.is_set():
            number = number % ROWS + 1
            if found(stage, reader, address(number)) != [number]:
                wrong.append(number)

    def change(cipher: FieldCipher) -> None:
        number = 0
        try:
            while not stop.is_set():
                number = number % ROWS + 1
                write(stage, cipher, number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=search)]
    threads += [threading.Thread(target=change, args=(each,)) for each in (old_writer, stage.cipher())]
    stage.sql("UPDATE fle_rotations SET switched_at = now() - interval '1001 seconds'")
    for thread in threads:
        thread.start()
    timer = threading.Timer(3, rotations.pause, (plan, "timer"))
    timer.start()
    rotations.run(plan, "tester", quiet, batch_rows=5)
    timer.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert rotations.run(plan, "tester", quiet) == (True, [])
    assert versions(stage) == ["2"]
    rotations.verify(plan, "tester")


def lose(stage: Stage, version: int) -> None:
    stage.sql(
        "DELETE FROM fle_wraps w USING fle_keys k"
        " WHERE w.key_id = k.id AND k.purpose = 'field-index' AND k.version = %s",
        version,
    )


def test_a_lost_old_index_key_stops_no_token_and_is_rotated_away(
    indexed: Stage, rotations: Rotations
) -> None:
    """A search says that it would miss rows; writers go on; and a rotation needs the new key alone."""
    plan = approved(indexed, rotations, "reindex").digest()
    rotations.start(plan, "tester")
    lose(indexed, 1)
    cipher = indexed.cipher()
    assert index_of(cipher).token("gold", address(1)).startswith("3.2.")
    with pytest.raises(errors.KeyDestroyed):
        index_of(cipher).tokens("gold", address(1))
    steps = Rotations(indexed.outputs, indexed.url, cipher)
    assert steps.run(plan, "tester", quiet) == (True, [])
    steps.verify(plan, "tester")
    steps.finalize(plan, "requester", PEOPLE["requester"])
    assert all_found(indexed, indexed.cipher())


def test_a_token_beside_another_value_is_named(indexed: Stage, rotations: Rotations) -> None:
    plan = approved(indexed, rotations, "reindex").digest()
    rotations.run(plan, "tester", quiet)
    indexed.sql(
        "UPDATE customers c SET email_token = o.email_token FROM customers o WHERE (c.id, o.id) IN ((4, 5))"
    )
    with pytest.raises(CheckFailed, match=r"1 values read otherwise.*\(customers.email row 4\)"):
        rotations.verify(plan, "tester")


def test_values_that_can_not_be_read_are_named_and_hold_it_up(indexed: Stage, rotations: Rotations) -> None:
    indexed.sql("UPDATE customers SET email = NULL WHERE id = 4")
    indexed.sql("UPDATE customers c SET email = o.email FROM customers o WHERE (c.id, o.id) IN ((5, 6))")
    plan = approved(indexed, rotations, "reindex").digest()
    done, failed = rotations.run(plan, "tester", quiet)
    assert len(failed) == 2
    assert any("row 4" in each and "without its value" in each for each in failed), failed
    assert any("row 5" in each and "altered" in each for each in failed), failed
    with pytest.raises(CheckFailed, match="2 are not where they should be"):
        rotations.verify(plan, "tester")
    del done


def test_going_back_makes_tokens_under_the_old_key_again(indexed: Stage, rotations: Rotations) -> None:
    plan = approved(indexed, rotations, "reindex").digest()
    rotations.run(plan, "tester", quiet)
    rotations.begin_rollback(plan, "requester", PEOPLE["requester"])
    assert all_found(indexed, indexed.cipher())
    rotations.run(plan, "tester", quiet)
    rotations.end_rollback(plan, "tester")
    assert (versions(indexed), states(indexed)) == (["1"], ["active", "retired"])
    assert all_found(indexed, indexed.cipher())


def test_a_stage_without_tokens_has_no_index_to_rotate(stage: Stage) -> None:
    with pytest.raises(BadInput, match="names no tokens"):
        Rotations(stage.outputs, stage.url, stage.cipher()).plan(
            "gold", "reindex", "requester", PEOPLE["requester"]
        )
    with pytest.raises(ValueError, match="not among the columns"):
        EncryptedTable.model_validate({**SPEC.model_dump(), "columns": {"phone": "phone"}})


@pytest.mark.parametrize(
    ("step", "point"),
    [
        ("run", ("kilo.fle.keytable", "KeyTable.create", "after", 1)),
        ("run", (STEPS, "move", "after", 1)),
        ("run", (STEPS, "switch", "after", 1)),
        ("run", (STEPS, "Rotations._activate_index", "after", 1)),
        ("run", (BACKFILL, "Backfill._claim", "after", 3)),
        ("run", (BACKFILL, "Backfill._batch", "after", 2)),
        ("run", (STEPS, "Rotations._backfilled", "before", 1)),
        ("verify", (STEPS, "move", "after", 1)),
        ("finalize", (ENDINGS, "move", "after", 1)),
        ("rollback", (ENDINGS, "switch", "after", 1)),
        ("rollback", (ENDINGS, "retire", "after", 1)),
    ],
)
def test_killed_at_every_step_and_given_again(
    indexed: Stage,
    rotations: Rotations,
    tmp_path: Path,
    commands: Commands,
    step: str,
    point: tuple[Any, ...],
) -> None:
    killed, key = Killed(indexed, tmp_path, commands), PEOPLE["requester"]
    plan = approved(indexed, rotations, "reindex").digest()
    if step != "run":
        rotations.run(plan, "tester", quiet)
    if step == "finalize":
        rotations.verify(plan, "tester")
    killed.drive(plan, step, *point)
    assert all_found(indexed, indexed.cipher())
    if step == "rollback":
        rotations.begin_rollback(plan, "requester", key)
        rotations.run(plan, "tester", quiet)
        rotations.end_rollback(plan, "tester")
        assert (versions(indexed), states(indexed)) == (["1"], ["active", "retired"])
    else:
        if step == "run":
            assert rotations.run(plan, "tester", quiet) == (True, [])
        rotations.verify(plan, "tester")
        rotations.finalize(plan, "requester", key)
        assert (versions(indexed), states(indexed)) == (["2"], ["retired", "active"])
    assert all_found(indexed, indexed.cipher())


def test_deterministic_columns_are_searched_under_every_data_key_of_a_rotation(stage: Stage) -> None:
    stage.sql("CREATE TABLE customers (id bigint PRIMARY KEY, tenant text, email text, details jsonb)")
    clock = [0.0]
    reader = stage.cipher()
    reader.keyring.clock = lambda: clock[0]
    column = DeterministicColumn(reader, "email")

    def insert(number: int, cipher: FieldCipher) -> None:
        value = cipher.encrypt_deterministic("gold", "email", "ana@example.com")
        stage.sql("INSERT INTO customers VALUES (%s, 'gold', %s)", number, value)

    def search() -> list[int]:
        with psycopg.connect(stage.url) as connection:
            condition = column.condition("email", "gold", "ana@example.com")
            query = sql.SQL("SELECT id FROM customers WHERE {} ORDER BY id").format(condition)
            return [row[0] for row in connection.execute(query)]

    insert(1, stage.cipher())
    assert search() == [1]
    assert DeterministicColumn(reader, "email").values("gold", "other") != column.values("gold", "ana")
    rotations = Rotations(stage.outputs, stage.url, stage.cipher())
    plan: Plan = approved(stage, rotations)
    rotations.start(plan.digest(), "tester")
    insert(2, stage.cipher())
    clock[0] += 1.1
    assert search() == [1, 2]
    rotations.run(plan.digest(), "tester", quiet)
    assert search() == [1, 2]
    rotations.verify(plan.digest(), "tester")
    rotations.finalize(plan.digest(), "requester", PEOPLE["requester"])
    clock[0] += 1.1
    assert search() == [1, 2]
    assert len(column.values("gold", "x")) == 1
    with pytest.raises(errors.UnknownTenant):
        column.values("nobody", "x")
