"""What people signed: verified from the log alone, under keys that do not come from it.

The forger of these tests owns the database and the checkpoint key, so that chain and checkpoints hold.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import rfc8785

from kilo.errors import CheckFailed
from kilo.fle.audit.log import GENESIS, Entry, append, leaf_hash, read
from kilo.fle.audit.signatures import PROMOTE_EMERGENCY, check_signatures
from kilo.fle.audit.store import FolderStore, S3Store
from kilo.fle.audit.verify import check, checkpoint, export
from kilo.fle.importing import import_digest, import_key
from kilo.fle.rotation import approval
from kilo.fle.rotation.steps import Rotations
from kilo.fle.shred import keys_digest, shred
from kilo.fle.wraps import secret_digest
from tests.commands import Commands

from .conftest import AUDIT_KEY, PEOPLE, Stage, public
from .test_cli import Kilo
from .test_rotation import approved, fill, quiet

PUBLIC = AUDIT_KEY.public_key().public_bytes_raw()
KEYS = {name: [key.public_key().public_bytes_raw()] for name, key in PEOPLE.items() if name != "stranger"}
PLAN, ONE, TWO, RUN, FINALIZE = 0, 1, 2, 3, 6


@pytest.fixture
def log(stage: Stage) -> list[dict[str, Any]]:
    """The entries of a rotation from plan to finalize."""
    rotations = Rotations(stage.outputs, stage.url, stage.cipher())
    fill(stage, stage.cipher(), rows=3)
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    return decisions(stage)


def decisions(stage: Stage) -> list[dict[str, Any]]:
    """The log without the making of keys, which nobody signs."""
    with psycopg.connect(stage.url) as connection:
        found = [entry.fields() for entry in read(connection)]
    return [each for each in found if each["action"] != "make-key"]


def chained(contents: list[dict[str, Any]]) -> list[Entry]:
    """A log of these contents whose chain holds."""
    previous, made = GENESIS, list[Entry]()
    for seq, content in enumerate(contents):
        text = rfc8785.dumps({**content, "seq": seq, "previous": previous.hex()}).decode()
        made.append(Entry(seq, text, previous := leaf_hash(text)))
    return made


def problems(contents: list[dict[str, Any]]) -> list[str]:
    return check_signatures(chained(contents), "test", KEYS)[1]


def test_all_signatures_of_a_rotation_verify(log: list[dict[str, Any]]) -> None:
    assert check_signatures(chained(log), "test", KEYS) == (4, [])


def flipped(log: list[dict[str, Any]]) -> None:
    signature = log[ONE]["details"]["signature"]
    log[ONE]["details"]["signature"] = f"{int(signature[0], 16) ^ 1:x}{signature[1:]}"


def by_another(log: list[dict[str, Any]]) -> None:
    log[ONE]["actor"] = "requester"


def without(log: list[dict[str, Any]]) -> None:
    del log[FINALIZE]["details"]["signature"]


def no_hex(log: list[dict[str, Any]]) -> None:
    log[FINALIZE]["details"]["signature"] = "signed"


def dropped(log: list[dict[str, Any]]) -> None:
    del log[TWO]


def reordered(log: list[dict[str, Any]]) -> None:
    log.append(log.pop(TWO))


def twice_the_same(log: list[dict[str, Any]]) -> None:
    log[TWO] = log[ONE]


def another_tenant(log: list[dict[str, Any]]) -> None:
    log[PLAN]["details"]["content"]["tenant"] = "second"


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        (flipped, ["entry 1: approve: the signature of approver.one does not verify"]),
        (by_another, ["entry 1: approve: the signature of requester does not verify"]),
        (without, ["entry 6: finalize: the signature of requester is missing"]),
        (no_hex, ["entry 6: finalize: the signature of requester does not verify"]),
        (dropped, ["entry 2: run:", "entry 5: finalize:"]),
        (reordered, ["entry 2: run:", "entry 5: finalize:"]),
        (twice_the_same, ["entry 3: run:", "entry 6: finalize:"]),
        (another_tenant, ["entry 0: plan: the plan is not the one whose hash was signed"]),
    ],
)
def test_a_forged_log_is_found_out_entry_by_entry(
    log: list[dict[str, Any]], forge: Callable[[list[dict[str, Any]]], None], expected: list[str]
) -> None:
    forge(log)
    found = problems(log)
    for each in expected:
        assert any(line.startswith(each) for line in found), found
    allowed = (*expected, "entry 3: run:", "entry 6: finalize:")
    assert all(line.startswith(allowed) for line in found), found


def test_an_approval_of_one_plan_is_none_of_another(log: list[dict[str, Any]]) -> None:
    other = json.loads(json.dumps(log))
    for each in other:
        each["details"]["plan"] = "f" * 64
    found = problems(log + other)
    assert f"entry {7 + ONE}: approve: the signature of approver.one does not verify" in found
    assert not any(line.startswith(f"entry {seq}:") for seq in range(7) for line in found)


def test_an_approver_who_requested_it_under_another_name_does_not_count(log: list[dict[str, Any]]) -> None:
    plan = log[PLAN]["details"]["plan"]
    statement = approval.statement_of("test", "approve", plan, "approver.two")
    log[TWO]["details"]["signature"] = PEOPLE["requester"].sign(statement.encode()).hex()
    people = {**KEYS, "approver.two": KEYS["requester"]}
    _, found = check_signatures(chained(log), "test", people)
    assert "entry 3: run: plan" in found[0]
    assert "has 1 valid approvals before it instead of 2 (approver.one)" in found[0]


def test_a_shredding_needs_two_signatures_that_verify(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "ana@example.com")
    with psycopg.connect(stage.url) as connection:
        digest = keys_digest(connection, "gold")
        signed = [
            approval.sign(stage.outputs, "shred", digest, name, PEOPLE[name])
            for name in ("approver.one", "approver.two")
        ]
        shred(connection, stage.outputs, "gold", signed)
    log = decisions(stage)
    assert check_signatures(chained(log), "test", KEYS) == (2, [])
    log[0]["details"]["approvals"]["approver.two"] = log[0]["details"]["approvals"]["approver.one"]
    assert problems(log) == [
        "entry 0: shred: the signature of approver.two does not verify",
        "entry 0: shred: 1 people signed it instead of 2",
    ]


def test_an_auditor_offline_brings_the_keys_and_trusts_nothing_else(
    commands: Commands, stage: Stage, log: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = FolderStore(tmp_path / "export")
    with psycopg.connect(stage.url) as connection:
        checkpoint(connection, S3Store(stage.outputs.audit), "test", AUDIT_KEY)
        export(connection, S3Store(stage.outputs.audit), folder)
    assert check(folder, "test", PUBLIC, KEYS).signatures == 4
    kilo = Kilo(commands, stage, tmp_path)
    checkpoint_key = base64.b64encode(PUBLIC).decode()
    given = ["audit", "verify", "--export", "export", "--stage", "test", "--public-key", checkpoint_key]
    people = [f"--principal={name}={public(PEOPLE[name])}" for name in KEYS]
    done = kilo(*given, *people, "--json")
    assert json.loads(done.stdout)["signatures of people"] == len(log) - 3
    unknown = kilo(*given, *people[:-1], code=1).stderr.decode()
    assert "entry 3: approve: signed by approver.two, whose public key is not known" in unknown
    stranger = f"--principal=approver.two={public(PEOPLE['stranger'])}"
    wrong = kilo(*given, *people[:-1], stranger, code=1).stderr.decode()
    assert "entry 3: approve: the signature of approver.two does not verify" in wrong
    assert b"is not NAME=BASE64" in kilo(*given, "--principal", "bo", code=2).stderr
    assert kilo("audit", "verify", "--json").returncode == 0


def test_a_key_around_a_given_secret_is_signed_by_two_people_or_named(stage: Stage) -> None:
    cipher, secret = stage.cipher(), bytearray(b"k" * 32)
    digest = import_digest("legacy", secret_digest(secret).hex())
    signed = [
        approval.sign(stage.outputs, "import", digest, name, PEOPLE[name])
        for name in ("approver.one", "approver.two")
    ]
    for few in (signed[:1], [signed[0], signed[0]]):
        with pytest.raises(CheckFailed, match="two people"):
            import_key(cipher.keyring, stage.outputs, "legacy", secret, few)
    with pytest.raises(CheckFailed, match="something else"):
        # Another secret's signatures, or another tenant's.
        import_key(cipher.keyring, stage.outputs, "gold", secret, signed)
    import_key(cipher.keyring, stage.outputs, "legacy", secret, signed)
    with psycopg.connect(stage.url) as connection:
        entries = [entry.fields() for entry in read(connection)]
    assert check_signatures(chained(entries), "test", KEYS) == (2, [])
    # Whoever may encrypt under the tenant's KMS key adds one past the command.
    without = entries[:1]
    assert "nobody signed its import" in check_signatures(chained(without), "test", KEYS)[1][0]
    del entries[1]["details"]["approvals"]["approver.one"]
    assert "1 people signed it instead of 2" in check_signatures(chained(entries), "test", KEYS)[1][0]


def test_what_ramps_and_promotions_record_is_no_invention(stage: Stage) -> None:
    with psycopg.connect(stage.url) as connection:
        for action in ("ramp-started", "ramp-step", "ramp-revert", "ramp-done", "promotion-live"):
            append(connection, "ana", action, "ramp/test/acme/search", {"from": "0", "to": "5"})
        append(connection, "ana", "ramp-invented", "ramp/test/acme/search", {})
        _, problems = check_signatures(read(connection), "test", KEYS)
    assert problems == ["entry 5: ramp-invented: no command does that: the entry is invented"]


def emergency(stage: Stage, requester: str, *approvers: str) -> list[str]:
    approvals = {
        name: approval.sign(stage.outputs, PROMOTE_EMERGENCY, "d1", name, PEOPLE[name]).signature.hex()
        for name in approvers
    }
    with psycopg.connect(stage.url) as connection:
        details = {"digest": "d1", "reason": "incident 42", "approvals": approvals}
        append(connection, requester, "promotion-emergency", "promotion/test/d1", details)
        return check_signatures(read(connection), "test", KEYS)[1]


def test_an_emergency_takes_two_others_than_its_requester(stage: Stage) -> None:
    assert emergency(stage, "requester", "approver.one", "approver.two") == []
    problems = emergency(stage, "approver.one", "approver.one", "approver.two")
    assert problems == ["entry 1: promote-emergency: 1 people signed it instead of 2"]
