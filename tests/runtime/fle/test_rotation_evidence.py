"""Verification compares plaintexts with those of before, value by value, and tells who wrote since."""

from __future__ import annotations

import json
import threading

import pytest

from kilo.errors import CheckFailed
from kilo.fle.rotation.steps import Rotations

from .conftest import PEOPLE, Stage
from .test_rotation import approved, counted, fill, quiet, read_all


@pytest.fixture
def rotations(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


@pytest.fixture
def plan(stage: Stage, rotations: Rotations) -> str:
    """A rotation of 50 rows with two values each that is through."""
    fill(stage, stage.cipher())
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet, batch_rows=7)
    return plan


def columns(stage: Stage) -> dict[str, dict[str, int | str]]:
    """What the log keeps of the last verification."""
    rows = stage.sql("SELECT entry FROM fle_audit WHERE entry::jsonb ->> 'action' = 'verify' ORDER BY seq")
    return json.loads(rows[-1][0])["details"]["columns"]


def test_equal_plaintexts_are_shown_by_count_and_digest_a_column(
    stage: Stage, rotations: Rotations, plan: str
) -> None:
    assert rotations.verify(plan, "tester") == counted(100)
    first = columns(stage)
    assert set(first) == {"customers.email", "customers.phone"}
    for each in first.values():
        assert (each["values"], each["same"], each["written_since"]) == (50, 50, 0)
        assert each["before"] == each["after"] != "0" * 32
    assert first["customers.email"]["before"] != first["customers.phone"]["before"]
    rotations.verify(plan, "tester")
    assert columns(stage) == first


def test_what_was_written_or_deleted_since_is_counted_apart(
    stage: Stage, rotations: Rotations, plan: str
) -> None:
    changed = stage.cipher().encrypt("gold", "email", 3, "changed@example.com")
    stage.sql("UPDATE customers SET email = %s WHERE id = 3", changed)
    # The same value again, under another nonce: somebody wrote, whatever it was.
    again = stage.cipher().encrypt("gold", "email", 4, "user4@example.com")
    stage.sql("UPDATE customers SET email = %s WHERE id = 4", again)
    stage.sql("DELETE FROM customers WHERE id = 5")
    counts = rotations.verify(plan, "tester")
    assert counts == {
        "values": 98,
        "failed": 0,
        "plain": 0,
        "converted": 100,
        "same": 96,
        "written_since": 2,
    }
    assert columns(stage)["customers.email"]["written_since"] == 2
    assert columns(stage)["customers.phone"]["same"] == 49


@pytest.mark.parametrize(
    ("forge", "rows"),
    [
        # Altered: the plaintext of before was another one.
        ("evidence[1] = set_byte(evidence[1], 31, get_byte(evidence[1], 31) # 1)", 1),
        # Reordered: two values' plaintexts of before change places.
        (
            "evidence[1] = substr(evidence[1], 1, 16) || substr(evidence[2], 17),"
            " evidence[2] = substr(evidence[2], 1, 16) || substr(evidence[1], 17)",
            2,
        ),
    ],
)
def test_a_value_that_reads_otherwise_than_before_is_named(
    stage: Stage, rotations: Rotations, plan: str, forge: str, rows: int
) -> None:
    stage.sql(f"UPDATE fle_rotation_batches SET {forge} WHERE seq = 1")
    named = "row 1, customers.email row 2" if rows == 2 else "row 1"
    with pytest.raises(CheckFailed, match=rf"{rows} values read otherwise.*\(customers.email {named}\)"):
        rotations.verify(plan, "tester")
    assert stage.sql("SELECT state FROM fle_rotations") == [("running",)]


def test_dropped_evidence_shows_as_values_that_nobody_vouches_for(
    stage: Stage, rotations: Rotations, plan: str
) -> None:
    stage.sql("UPDATE fle_rotation_batches SET evidence = evidence[3:] WHERE seq = 1")
    counts = rotations.verify(plan, "tester")
    assert (counts["converted"], counts["same"], counts["written_since"]) == (98, 98, 2)


def test_values_that_change_places_are_refused(stage: Stage, rotations: Rotations, plan: str) -> None:
    stage.sql(
        "UPDATE customers c SET email = o.email FROM customers o WHERE (c.id, o.id) IN ((1, 2), (2, 1))"
    )
    with pytest.raises(CheckFailed, match="2 values can't be decrypted"):
        rotations.verify(plan, "tester")


def test_several_workers_and_lost_races_leave_the_same_evidence(stage: Stage, rotations: Rotations) -> None:
    plain = fill(stage, stage.cipher(), rows=200)
    plan = approved(stage, rotations).digest()
    others = [Rotations(stage.outputs, stage.url, stage.cipher()) for _ in range(3)]
    threads = [threading.Thread(target=each.run, args=(plan, "t", quiet, 10)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rotations.run(plan, "tester", quiet)
    assert rotations.verify(plan, "tester") == counted(400)
    assert read_all(stage, stage.cipher()) == plain


def test_evidence_of_single_values_goes_when_the_rotation_ends(
    stage: Stage, rotations: Rotations, plan: str
) -> None:
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert stage.sql("SELECT count(*), count(evidence) FROM fle_rotation_batches")[0][1] == 0
