"""The audit log: chain, checkpoints, locked store, verification by name of the entry."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import ClientError

from kilo.errors import CheckFailed
from kilo.fle.audit.log import Entry, append, leaf_hash, merkle_root, read
from kilo.fle.audit.notes import BadNote, Checkpoint, sign, verify
from kilo.fle.audit.store import PREFIX, AlreadyWritten, FolderStore, S3Store
from kilo.fle.audit.verify import EXPORTED_LOG, Report, check, checkpoint, export

from .conftest import AUDIT_KEY, PEOPLE, Stage

PUBLIC = AUDIT_KEY.public_key().public_bytes_raw()
KEYS = {name: [key.public_key().public_bytes_raw()] for name, key in PEOPLE.items() if name != "stranger"}


def write(stage: Stage, count: int) -> None:
    with psycopg.connect(stage.url) as connection:
        for number in range(count):
            append(connection, "ana", "rewrap", "tenant/gold", {"number": number})


def entries(stage: Stage) -> list[Entry]:
    with psycopg.connect(stage.url) as connection:
        return read(connection)


@pytest.fixture
def store(stage: Stage) -> S3Store:
    return S3Store(stage.outputs.audit)


def seal(stage: Stage, store: S3Store) -> Checkpoint | None:
    with psycopg.connect(stage.url) as connection:
        return checkpoint(connection, store, "test", AUDIT_KEY)


def problems(stage: Stage, store: S3Store) -> list[str]:
    return check(store, "test", PUBLIC, KEYS, entries(stage)).problems


def tamper(stage: Stage, statement: str) -> None:
    """As somebody who owns the database can."""
    with psycopg.connect(stage.url) as connection:
        connection.execute("ALTER TABLE fle_audit DISABLE TRIGGER ALL")
        connection.execute(statement.encode())
        connection.execute("ALTER TABLE fle_audit ENABLE TRIGGER ALL")


def test_a_log_with_its_checkpoints_verifies(stage: Stage, store: S3Store) -> None:
    write(stage, 3)
    assert seal(stage, store)
    write(stage, 4)
    assert seal(stage, store)
    assert seal(stage, store) is None
    write(stage, 2)
    report = check(store, "test", PUBLIC, KEYS, entries(stage))
    assert (report.entries, report.checkpoints, report.uncovered, report.problems) == (9, 2, 2, [])


def test_the_table_refuses_changes(stage: Stage) -> None:
    write(stage, 1)
    for statement in ("UPDATE fle_audit SET entry = ''", "DELETE FROM fle_audit", "TRUNCATE fle_audit"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            stage.sql(statement)


def test_an_altered_entry_is_named(stage: Stage, store: S3Store) -> None:
    write(stage, 5)
    tamper(stage, "UPDATE fle_audit SET entry = replace(entry, 'ana', 'eve') WHERE seq = 2")
    assert problems(stage, store) == ["database: entry 2: altered (its hash does not match its text)"]


def test_a_dropped_entry_is_named(stage: Stage, store: S3Store) -> None:
    write(stage, 5)
    tamper(stage, "DELETE FROM fle_audit WHERE seq = 3")
    assert problems(stage, store) == ["database: entry 3: dropped"]


def test_reordered_entries_are_named(stage: Stage, store: S3Store) -> None:
    write(stage, 5)
    tamper(
        stage,
        "UPDATE fle_audit SET seq = CASE seq WHEN 1001 THEN 2 ELSE 1 END WHERE false;"
        "UPDATE fle_audit SET seq = 1001 WHERE seq = 1; UPDATE fle_audit SET seq = 1 WHERE seq = 2;"
        "UPDATE fle_audit SET seq = 2 WHERE seq = 1001",
    )
    found = problems(stage, store)
    assert "database: entry 1: reordered (it was written as entry 2)" in found
    assert "database: entry 2: reordered (it was written as entry 1)" in found


def test_a_whole_chain_that_was_rewritten_is_found_by_the_store(stage: Stage, store: S3Store) -> None:
    write(stage, 5)
    seal(stage, store)
    tamper(stage, "TRUNCATE fle_audit")
    with psycopg.connect(stage.url) as connection:
        for number in range(5):
            append(connection, "eve" if number == 3 else "ana", "rewrap", "tenant/gold", {"number": number})
    found = problems(stage, store)
    assert "entry 3: altered in the database (the store has another text)" in found


def test_entries_dropped_from_the_end_are_found_by_the_store(stage: Stage, store: S3Store) -> None:
    write(stage, 5)
    seal(stage, store)
    tamper(stage, "DELETE FROM fle_audit WHERE seq >= 3")
    assert problems(stage, store) == [
        f"entry {seq}: is in the store and was dropped from the database" for seq in (3, 4)
    ]


def test_a_log_that_was_rewritten_is_not_signed(stage: Stage, store: S3Store) -> None:
    """A checkpoint over another past would make the forger's log the one that is locked."""
    write(stage, 5)
    seal(stage, store)
    tamper(stage, "TRUNCATE fle_audit")
    with pytest.raises(CheckFailed, match="checkpoint-0000000005"):
        seal(stage, store)
    write(stage, 7)
    with pytest.raises(CheckFailed, match="checkpoint-0000000005"):
        seal(stage, store)


def test_what_a_delete_marker_hides_is_found_all_the_same(stage: Stage, store: S3Store) -> None:
    """A lock keeps versions; it does not refuse a plain delete, after which a listing shows nothing."""
    write(stage, 3)
    seal(stage, store)
    bucket = stage.outputs.audit.bucket
    for each in stage.s3.list_objects_v2(Bucket=bucket)["Contents"]:
        stage.s3.delete_object(Bucket=bucket, Key=each["Key"])
    assert "Contents" not in stage.s3.list_objects_v2(Bucket=bucket)
    tamper(stage, "DELETE FROM fle_audit WHERE seq = 2")
    assert problems(stage, store) == ["entry 2: is in the store and was dropped from the database"]


def test_a_checkpoint_by_another_key_is_refused(stage: Stage, store: S3Store) -> None:
    write(stage, 2)
    with psycopg.connect(stage.url) as connection:
        checkpoint(connection, store, "test", PEOPLE["stranger"])
    assert problems(stage, store) == ["checkpoint-0000000002.note: it is not signed by the audit key"]


def test_the_bucket_locks_what_is_put_there(stage: Stage, store: S3Store) -> None:
    write(stage, 2)
    seal(stage, store)
    bucket = stage.outputs.audit.bucket
    versions = stage.s3.list_object_versions(Bucket=bucket)["Versions"]
    assert {each["Key"] for each in versions} == {
        f"{PREFIX}entries-0000000000-0000000002.jsonl",
        f"{PREFIX}checkpoint-0000000002.note",
    }
    for each in versions:
        with pytest.raises(ClientError, match="AccessDenied"):
            stage.s3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    with pytest.raises(AlreadyWritten):
        store.create("checkpoint-0000000002.note", "another")
    # A later version on top, which a lock does not prevent, is not what is read.
    stage.s3.put_object(Bucket=bucket, Key=f"{PREFIX}checkpoint-0000000002.note", Body=b"forged")
    assert problems(stage, store) == []


def test_an_export_verifies_offline(stage: Stage, store: S3Store, tmp_path: Path) -> None:
    write(stage, 3)
    seal(stage, store)
    write(stage, 1)
    folder = FolderStore(tmp_path / "export")
    with psycopg.connect(stage.url) as connection:
        assert export(connection, store, folder) == 4
    lines = folder.read(EXPORTED_LOG).splitlines()
    exported = [Entry(seq, text, leaf_hash(text)) for seq, text in enumerate(lines)]
    assert check(folder, "test", PUBLIC, KEYS, exported).problems == []
    (tmp_path / "export" / "entries-0000000000-0000000003.jsonl").write_text(
        "\n".join(["{}", *lines[1:3]]) + "\n"
    )
    found = check(folder, "test", PUBLIC, KEYS, exported).problems
    assert any("entry 0" in each and "altered" in each for each in found)
    assert any("does not sign" in each for each in found)


def test_notes_are_those_of_the_specification() -> None:
    made = sign(Checkpoint("kilo/test/fle-audit", 3, b"r" * 32), AUDIT_KEY)
    assert made.startswith("kilo/test/fle-audit\n3\n")
    assert "\n\n— kilo/test/fle-audit " in made
    assert verify(made, PUBLIC).size == 3
    for bad in (made.replace("\n3\n", "\n4\n"), made.replace("\n\n", "\n"), "", "\n\n", made[:-20]):
        with pytest.raises(BadNote):
            verify(bad, PUBLIC)


def test_the_tree_is_rfc_6962_s() -> None:
    """Roots of the leaves of RFC 6962 implementations' common test data (certificate-transparency)."""
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    leaves = [leaf_bytes(bytes.fromhex(each)) for each in data]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    for size, root in roots.items():
        assert merkle_root(leaves[:size]).hex() == root


def leaf_bytes(data: bytes) -> bytes:
    from hashlib import sha256

    return sha256(b"\x00" + data).digest()


def test_entries_hold_their_place_and_canonical_text(stage: Stage) -> None:
    write(stage, 2)
    found = entries(stage)
    assert json.loads(found[1].text)["previous"] == found[0].hash.hex()
    report = Report()
    assert report.problems == []
