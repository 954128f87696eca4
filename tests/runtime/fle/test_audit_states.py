"""The end of the log cut off, states changed behind it, and entries that nobody stands behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from kilo.errors import CheckFailed
from kilo.fle.audit.consistency import consistency_proof, is_consistent
from kilo.fle.audit.log import append, merkle_root, read
from kilo.fle.audit.signatures import check_signatures
from kilo.fle.audit.states import check_states
from kilo.fle.audit.store import PREFIX, S3Store
from kilo.fle.audit.verify import check, checkpoint

from .conftest import AUDIT_KEY, PEOPLE, Stage, url_of
from .test_approvals import adopted
from .test_audit import KEYS, PUBLIC, entries, seal, store, tamper, write
from .test_audit_signatures import chained
from .test_rotation import approve, approved, fill, quiet
from .test_scope import configured, rotations

__all__ = ["adopted", "store"]


def contradictions(stage: Stage) -> list[str]:
    with psycopg.connect(stage.url) as connection:
        return check_states(connection, read(connection))


@pytest.fixture
def finalized(stage: Stage) -> str:
    fill(stage, stage.cipher(), rows=3)
    plan = approved(stage, rotations(stage)).digest()
    rotations(stage).run(plan, "tester", quiet)
    rotations(stage).verify(plan, "tester")
    rotations(stage).finalize(plan, "requester", PEOPLE["requester"])
    return plan


def test_a_log_whose_end_was_cut_off_contradicts_the_tables_and_is_not_signed(
    stage: Stage, finalized: str, store: S3Store
) -> None:
    assert contradictions(stage) == []
    tamper(stage, "DELETE FROM fle_audit WHERE seq >= (SELECT max(seq) - 4 FROM fle_audit)")
    found = contradictions(stage)
    assert f"plan {finalized[:12]}: is finalized, and the log says planned" in found
    assert "key 2 of gold: no entry of the log has its making" in found
    assert "key 1 of gold: is retired, and no entry of the log says so" in found
    with pytest.raises(CheckFailed, match="is finalized, and the log says planned"):
        seal(stage, store)
    assert store.names() == []


CHANGES = [
    ("UPDATE fle_rotations SET state = 'verified'", "plan {}: is verified, and the log says finalized"),
    ("DELETE FROM fle_rotations", "plan {}: is in the log, and not among the rotations"),
    ("UPDATE fle_tenants SET minimum_version = 0", "gold: readers take values that the last finalized"),
    ("UPDATE fle_tenants SET shredded_at = now()", "gold: the log and the key table differ on whether"),
    ("UPDATE fle_keys SET state = 'destroyed' WHERE id = 1", "key 1 of gold: is destroyed, and no entry"),
    ("UPDATE fle_keys SET state = 'retired' WHERE id = 2", "key 2 of gold: is retired, and no entry"),
    ("UPDATE fle_keys SET digest = sha256('x') WHERE id = 2", "key 2 of gold: its secret is not the one"),
    (
        "DELETE FROM fle_wraps; DELETE FROM fle_keys WHERE id = 1",
        "key 1: was made, and is not in the key table",
    ),
    (
        "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest)"
        " VALUES (9, 'gold', 'field-data', 2, 9, 'retiring', 1, sha256('y'))",
        "key 9 of gold: no entry of the log has its making",
    ),
    (
        "UPDATE fle_scope SET plain_accepted = true WHERE field = 'email'",
        "gold/email: plain values are accepted",
    ),
    ("INSERT INTO fle_checkpoints (size) VALUES (999)", "999 were signed: its end was cut off"),
]


def test_a_state_that_was_changed_behind_the_log_is_named(stage: Stage, finalized: str) -> None:
    for statement, said in CHANGES:
        with psycopg.connect(stage.url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(statement.encode())
            found = check_states(connection, read(connection))
            connection.rollback()
        assert any(said.format(finalized[:12]) in each for each in found), (statement, found)
    assert contradictions(stage) == []


def test_the_auditor_s_role_can_compare_and_sees_no_wrap(
    stage: Stage, finalized: str, store: S3Store
) -> None:
    with psycopg.connect(url_of(stage, "kilo_auditor")) as connection:
        assert checkpoint(connection, store, "test", AUDIT_KEY)


def test_entries_that_nobody_stands_behind_are_named(stage: Stage, finalized: str) -> None:
    with psycopg.connect(stage.url) as connection:
        append(connection, "approver.one", "destroy", "tenant/gold", {"keys": [2]})
        append(connection, "approver.one", "destroy", "tenant/gold", {"keys": [1]})
        append(connection, "approver.two", "release", "tenant/gold", {"note": "anything"})
        append(connection, "approver.two", "run", "tenant/gold", {"plan": "f" * 64, "state": "running"})
        append(connection, "approver.two", "finalize", "tenant/gold", {})
        found = check_signatures(read(connection), "test", KEYS)[1]
        connection.rollback()
    said = [each.partition(": ")[2] for each in found]
    assert said == [
        "destroy: no signed entry before it retired key 2",
        "destroy: the waiting period of key 1 was not over",
        "release: no command does that: the entry is invented",
        f"run: plan {'f' * 12} has 0 valid approvals before it instead of 3 (nobody)",
        "finalize: it names no plan",
    ]


def test_undoing_an_adoption_with_one_signature_is_named(stage: Stage, adopted: str) -> None:
    after = rotations(configured(stage))
    approve(stage, after, adopted, rollback=True)
    after.begin_rollback(adopted, "requester", PEOPLE["requester"])
    log = [entry.fields() for entry in entries(stage)]
    assert check_signatures(chained(log), "test", KEYS)[1] == []
    without = [each for each in log if each["action"] != "approve-rollback"]
    (found,) = check_signatures(chained(without), "test", KEYS)[1]
    assert "rollback: it lowers protection, and 0 others approved" in found


def test_checkpoints_are_compared_by_a_proof_in_the_store(stage: Stage, store: S3Store) -> None:
    for count in (3, 4, 6):
        write(stage, count)
        seal(stage, store)
    assert check(store, "test", PUBLIC, KEYS, entries(stage)).problems == []
    names = [each for each in store.names() if each.endswith(".proof")]
    assert names == ["consistency-0000000003-0000000007.proof", "consistency-0000000007-0000000013.proof"]
    read_one: Callable[[str], str] = store.read
    forged = read_one(names[1]).replace("\n", "", 1)

    class Forged(S3Store):
        def read(self, name: str) -> str:
            return forged if name == names[1] else read_one(name)

    assert check(Forged(stage.outputs.audit), "test", PUBLIC, KEYS, entries(stage)).problems == [
        f"{names[1]}: does not show that the later checkpoint extends the earlier one"
    ]
    assert stage.s3.head_object(Bucket=stage.outputs.audit.bucket, Key=PREFIX + names[0])["ObjectLockMode"]


def test_proofs_are_those_of_the_specification() -> None:
    """Every pair of sizes; a proof holds for its own two roots and for no other."""
    leaves = [bytes([number]) * 32 for number in range(20)]
    roots = {size: merkle_root(leaves[:size]) for size in range(1, 21)}
    other = merkle_root([b"x" * 32, *leaves[1:]])
    for larger in range(1, 21):
        for size in range(1, larger + 1):
            proof = consistency_proof(leaves[:larger], size)
            assert is_consistent(proof, (size, roots[size]), (larger, roots[larger]))
            assert not is_consistent(proof, (size, other), (larger, roots[larger]))
            assert not is_consistent(proof, (size, roots[size]), (larger, other))
            assert not is_consistent([*proof, b"y" * 32], (size, roots[size]), (larger, roots[larger]))


def test_what_the_proof_of_eight_leaves_is_made_of() -> None:
    """RFC 9162, section 2.1.5: the nodes of the example's proofs between 3, 4, 6 and 7 entries."""
    d: list[Any] = [bytes([number]) * 32 for number in range(7)]
    root = merkle_root
    assert consistency_proof(d, 3) == [d[2], d[3], root(d[:2]), root(d[4:])]
    assert consistency_proof(d, 4) == [root(d[4:])]
    assert consistency_proof(d, 6) == [root(d[4:6]), d[6], root(d[:4])]
