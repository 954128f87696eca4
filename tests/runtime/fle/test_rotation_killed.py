"""Rotation killed with SIGKILL at every step and given again; two at once; readers and writers meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kilo.errors import CheckFailed
from kilo.fle import CacheLimits
from kilo.fle.audit.log import read
from kilo.fle.audit.verify import Report, check_chain
from kilo.fle.rotation import approval
from kilo.fle.rotation.steps import Rotations
from tests.commands import Commands

from .conftest import PEOPLE, Stage
from .test_rotation import approved, fill, quiet, read_all

# Runs one step and kills itself at the n-th call of a function: before it, or after it.
DRIVER = """
import importlib, os, signal, sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kilo.contract import load_outputs
from kilo.fle import FieldCipher
from kilo.fle.rotation.steps import Rotations

outputs, url, plan, step, where, name, moment, number, key = sys.argv[1:]
holder = importlib.import_module(where)
*path, last = name.split(".")
for each in path:
    holder = getattr(holder, each)
original, calls = getattr(holder, last), 0

def killing(*args, **kwargs):
    global calls
    calls += 1
    if moment == "before" and calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*args, **kwargs)
    if moment == "after" and calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(holder, last, killing)
found = load_outputs(outputs)
rotations = Rotations(found, url, FieldCipher.from_outputs(found, url, table=""))
signer = load_pem_private_key(Path(key).read_bytes(), None)
if step == "run":
    rotations.run(plan, "driver", lambda _: None, batch_rows=7)
elif step == "verify":
    rotations.verify(plan, "driver")
elif step == "finalize":
    rotations.finalize(plan, "requester", signer)
elif step == "rollback":
    rotations.begin_rollback(plan, "requester", signer)
    rotations.run(plan, "driver", lambda _: None, batch_rows=7)
    rotations.end_rollback(plan, "driver")
print("not killed")
"""

STEPS, BACKFILL = "kilo.fle.rotation.steps", "kilo.fle.rotation.backfill"
ENDINGS = "kilo.fle.rotation.endings"
RUN_POINTS = [
    ("kilo.fle.keytable", "KeyTable.create", "before", 1),
    ("kilo.fle.keytable", "KeyTable.create", "after", 1),
    (STEPS, "switch", "before", 1),
    (STEPS, "switch", "after", 1),
    (STEPS, "move", "after", 1),
    (BACKFILL, "Backfill._claim", "before", 1),
    (BACKFILL, "Backfill._claim", "after", 1),
    (BACKFILL, "Backfill._claim", "after", 4),
    ("kilo.fle.rotation.columns", "Columns.swap", "before", 3),
    ("kilo.fle.rotation.columns", "Columns.swap", "after", 3),
    (BACKFILL, "Backfill._batch", "after", 2),
    (BACKFILL, "Backfill._batch", "after", 8),
    (STEPS, "Rotations._backfilled", "before", 1),
    (STEPS, "record", "after", 1),
]


class Killed:
    """A stage whose rotation is driven by processes that die."""

    def __init__(self, stage: Stage, folder: Path, commands: Commands) -> None:
        self.commands = commands
        self.stage, self.outputs, self.key = stage, folder / "outputs.json", folder / "key.pem"
        self.outputs.write_text(stage.outputs.model_dump_json())
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = PEOPLE["requester"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key.write_bytes(pem)

    def drive(self, plan: str, step: str, *point: object) -> None:
        place = [*map(str, point), str(self.key)]
        given = (str(self.outputs), self.stage.url, plan, step, *place)
        done = self.commands.run(*given, env=os.environ, code=DRIVER)
        assert done.returncode == -9, done.stdout + done.stderr


@pytest.fixture
def killed(stage: Stage, tmp_path: Path, commands: Commands) -> Killed:
    return Killed(stage, tmp_path, commands)


@pytest.fixture
def rotations(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


def chain_holds(stage: Stage) -> list[str]:
    import psycopg

    report = Report()
    with psycopg.connect(stage.url) as connection:
        check_chain(read(connection), report, "database")
    return report.problems


@pytest.mark.parametrize("point", RUN_POINTS, ids=lambda each: "-".join(map(str, each[1:])))
def test_a_killed_run_is_given_again(
    stage: Stage, killed: Killed, rotations: Rotations, point: tuple[object, ...]
) -> None:
    cipher = stage.cipher()
    plain = fill(stage, cipher)
    plan = approved(stage, rotations).digest()
    killed.drive(plan, "run", *point)
    assert read_all(stage, stage.cipher()) == plain
    assert rotations.run(plan, "tester", quiet, batch_rows=7) == (True, [])
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert read_all(stage, stage.cipher()) == plain
    states = [
        row[0] for row in stage.sql("SELECT state FROM fle_keys WHERE tenant = 'gold' ORDER BY version")
    ]
    assert states == ["retired", "active"]
    assert chain_holds(stage) == []


@pytest.mark.parametrize(
    ("step", "point"),
    [
        ("verify", (STEPS, "decrypt_all", "after")),
        ("verify", (STEPS, "move", "after")),
        ("finalize", (ENDINGS, "remaining", "after")),
        ("finalize", (ENDINGS, "move", "after")),
        ("finalize", (STEPS, "Rotations.finalize", "after")),
        ("rollback", (ENDINGS, "switch", "after")),
        ("rollback", (STEPS, "Rotations.begin_rollback", "after")),
        ("rollback", (BACKFILL, "Backfill._batch", "after")),
        ("rollback", (ENDINGS, "retire", "after")),
        ("rollback", (STEPS, "Rotations.end_rollback", "after")),
    ],
)
def test_killed_endings_are_given_again(
    stage: Stage, killed: Killed, rotations: Rotations, step: str, point: tuple[str, ...]
) -> None:
    plain = fill(stage, stage.cipher())
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    if step == "finalize":
        rotations.verify(plan, "tester")
    killed.drive(plan, step, *point, 1)
    assert read_all(stage, stage.cipher()) == plain
    key = PEOPLE["requester"]
    state = stage.sql("SELECT state FROM fle_rotations")[0][0]
    if step == "rollback":
        if state != "rolled-back":
            rotations.begin_rollback(plan, "requester", key)
            rotations.run(plan, "tester", quiet)
            rotations.end_rollback(plan, "tester")
    elif state != "finalized":
        rotations.verify(plan, "tester")
        rotations.finalize(plan, "requester", key)
    assert read_all(stage, stage.cipher()) == plain
    assert stage.sql("SELECT count(*) FROM fle_keys WHERE state = 'active' AND tenant = 'gold'") == [(1,)]
    assert chain_holds(stage) == []


def test_two_rotations_of_a_tenant_do_not_start(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    approved(stage, rotations)
    with pytest.raises(CheckFailed, match="open rotation"):
        rotations.plan("gold", "rekey", "requester", PEOPLE["requester"])


def test_two_runs_at_once_do_the_work_once(stage: Stage, rotations: Rotations) -> None:
    plain = fill(stage, stage.cipher(), rows=300)
    plan = approved(stage, rotations).digest()
    others = [Rotations(stage.outputs, stage.url, stage.cipher()) for _ in range(3)]
    threads = [threading.Thread(target=each.run, args=(plan, "t", quiet, 10)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rotations.run(plan, "tester", quiet) == (True, [])
    rotations.verify(plan, "tester")
    assert read_all(stage, stage.cipher()) == plain
    assert stage.sql("SELECT count(*) FROM fle_keys WHERE tenant = 'gold'") == [(2,)]
    assert stage.sql("SELECT sum(rows_changed) FROM fle_rotation_batches") == [(300,)]


def test_readers_and_writers_of_old_and_new_never_fail_while_it_runs(
    stage: Stage, rotations: Rotations
) -> None:
    """A writer whose keys are cached goes on under the old key; finalize waits until none of that is left."""
    old = stage.cipher(limits=CacheLimits(max_age_seconds=1200, outage_seconds=0))
    fill(stage, old, rows=400)
    plan = approved(stage, rotations).digest()
    stop, failures = threading.Event(), list[Exception]()

    def traffic(writes: bool) -> None:
        cipher = old if writes else stage.cipher()
        number = 0
        try:
            while not stop.is_set():
                number = number % 400 + 1
                if writes:
                    email = cipher.encrypt("gold", "email", number, f"changed{number}")
                    stage.sql("UPDATE customers SET email = %s WHERE id = %s", email, number)
                else:
                    for row, email in stage.sql("SELECT id, email FROM customers WHERE id = %s", number):
                        cipher.decrypt("gold", "email", row, email)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=traffic, args=(writes,)) for writes in (True, True, False, False)]
    for thread in threads:
        thread.start()
    rotations.start(plan, "tester")
    for _ in range(3):
        timer = threading.Timer(2, rotations.pause, (plan, "timer"))
        timer.start()
        rotations.run(plan, "tester", quiet, batch_rows=20)
        timer.cancel()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rotations.run(plan, "tester", quiet) == (True, [])
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])


def test_a_straggler_s_value_stops_finalize(stage: Stage, rotations: Rotations) -> None:
    old = stage.cipher()
    fill(stage, old)
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    late = old.encrypt("gold", "email", 1, "late")
    stage.sql("UPDATE customers SET email = %s WHERE id = 1", late)
    with pytest.raises(CheckFailed, match="under the old key"):
        rotations.finalize(plan, "requester", PEOPLE["requester"])


def test_finalize_waits_for_writers_to_settle(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    plan = approved(stage, rotations, settle=3600).digest()
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    with pytest.raises(CheckFailed, match="finalize later"):
        rotations.finalize(plan, "requester", PEOPLE["requester"])


def test_a_value_that_can_t_be_decrypted_is_left_and_named(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    stage.sql("UPDATE customers SET email = (SELECT email FROM customers WHERE id = 2) WHERE id = 1")
    plan = approved(stage, rotations).digest()
    done, failed = rotations.run(plan, "tester", quiet)
    assert done
    assert len(failed) == 1
    assert failed[0].startswith("customers: row 1: gold/email: the encrypted value was altered")
    with pytest.raises(CheckFailed, match="not complete"):
        rotations.verify(plan, "tester")


def test_an_altered_plan_does_not_run(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    plan = approved(stage, rotations).digest()
    stage.sql("UPDATE fle_rotations SET plan = replace(plan, 'gold', 'second')")
    with pytest.raises(CheckFailed, match="was altered"):
        rotations.run(plan, "tester", quiet)


def test_forged_approvals_do_not_count(stage: Stage, rotations: Rotations) -> None:
    fill(stage, stage.cipher())
    plan = rotations.plan("gold", "rekey", "requester", PEOPLE["requester"]).digest()
    statement = approval.statement_of("test", "approve", plan, "approver.one")
    forged = approval.Approval("approver.one", statement, PEOPLE["stranger"].sign(statement.encode()))
    with pytest.raises(CheckFailed, match="signature"):
        rotations.approve(plan, forged)
    for name in ("approver.one", "approver.two"):
        stage.sql(
            "INSERT INTO fle_rotation_approvals (plan_hash, principal, public_key, statement, signature)"
            " VALUES (%s, %s, %s, %s, %s)",
            plan,
            name,
            name,
            approval.statement_of("test", "approve", plan, name),
            bytes(64),
        )
    with pytest.raises(CheckFailed, match="signature"):
        rotations.run(plan, "tester", quiet)


def test_rotation_is_off_without_the_stage_s_flag(stage: Stage, rotations: Rotations) -> None:
    off = stage.outputs.field_encryption.model_copy(update={"rotation_enabled": False})
    outputs = stage.outputs.model_copy(update={"field_encryption": off})
    with pytest.raises(CheckFailed, match="switched off"):
        Rotations(outputs, stage.url, stage.cipher()).plan("gold", "rekey", "requester", PEOPLE["requester"])
