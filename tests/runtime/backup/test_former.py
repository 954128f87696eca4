"""Backups of format 2: their manifests stay readable, and are drilled by their rules or called unprovable."""

from __future__ import annotations

import hashlib
import json
import re
from io import BytesIO

import pytest
import rfc8785

from kilo.backup.catalogue import Entry, open_backup, read_catalogue
from kilo.backup.database import connect
from kilo.backup.definitions import SCHEMA
from kilo.backup.drill import drill
from kilo.backup.fingerprints import LARGE_OBJECTS, list_tables
from kilo.backup.former import count_tables, former_key
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import Manifest, ManifestKey, TableState, parse_manifest
from kilo.backup.signatures import Signer, Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from tests.runtime.backup.test_backup import back_up
from tests.runtime.backup.test_values import execute

FIELDS = {
    "database", "duration_seconds", "encryption", "finished_at", "format", "id", "lsn", "objects", "previous",
    "schema_version", "sequence", "server_version", "signature", "snapshot_at", "stage", "tables",
}  # fmt: skip
"""Of a manifest of format 2, as it lies in stores."""


def as_before(outputs: StackOutputs, stores: dict[str, Store], manifest: Manifest, url: str) -> Manifest:
    """Publish ``manifest`` as the release before would have made it."""
    with connect(url) as connection:
        expected = {
            former_key(table): TableState(
                rows=0, fingerprint="", hashed="text" if table.name == "notes" else "record"
            )
            for table in list_tables(connection)
        }
        tables, _ = count_tables(connection, expected)
    objects = {name: state for name, state in manifest.objects.items() if name != SCHEMA}
    made = manifest.model_copy(
        update={"format": 2, "sequence": 9, "tables": tables, "objects": objects, "signature": None}
    ).signed(Signer(outputs.backups))
    for store in stores.values():
        store.create(made.key(), BytesIO(made.content()))
    return made


def entry_of(stores: dict[str, Store], manifest: Manifest) -> Entry:
    [entry] = [found for found in read_catalogue(stores).entries if found.key.key == manifest.key()]
    return entry


def test_a_manifest_of_format_2_is_read_and_drilled_by_its_own_rules(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, filled_url: str
) -> None:
    made = as_before(outputs, stores, back_up(outputs, stores, filled_url).manifest, filled_url)
    content = json.loads(made.content())
    assert content.keys() == FIELDS
    assert content["tables"]["shop.Orders"]["hashed"] == "record"
    assert LARGE_OBJECTS in content["tables"]
    assert rfc8785.dumps(content) == made.content()
    opened = open_backup(stores["primary"], Verifier(outputs.backups), key, entry_of(stores, made))
    assert opened.manifest.content() == made.content()
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert (evidence.error, evidence.rows) == (None, 20_104)


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (
            [
                "CREATE TYPE mood AS ENUM ('a')",
                "CREATE TABLE felt (x mood[])",
                "INSERT INTO felt VALUES ('{a}')",
            ],
            r"public\.felt can't be proven .*hashed by its OID",
        ),
        (["CREATE TABLE timed (t int, x text)"], r"public\.timed can't be proven .*column t alone"),
        (
            ['CREATE SCHEMA "a.b"', "CREATE SCHEMA a", 'CREATE TABLE "a.b".c ()', 'CREATE TABLE a."b.c" ()'],
            r"a\.b\.c can't be proven .*two tables",
        ),
    ],
    ids=["enum", "t", "names"],
)
def test_what_its_rules_could_not_tell_is_said(
    outputs: StackOutputs,
    stores: dict[str, Store],
    key: BackupKey,
    empty_database_url: str,
    statements: list[str],
    why: str,
) -> None:
    execute(empty_database_url, statements)
    as_before(outputs, stores, back_up(outputs, stores, empty_database_url).manifest, empty_database_url)
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert re.search(why, evidence.error or "")


def test_nothing_is_added_to_a_manifest_that_its_signature_does_not_cover(
    outputs: StackOutputs, stores: dict[str, Store], filled_url: str
) -> None:
    made = as_before(outputs, stores, back_up(outputs, stores, filled_url).manifest, filled_url)
    content = rfc8785.dumps(json.loads(made.content()) | {"bootstrap_role": "intruder"})
    digest = hashlib.sha256(content).hexdigest()
    forged = ManifestKey(
        f"manifests/{made.sequence:08d}-{made.id}-{digest}.json", made.sequence, made.id, digest
    )
    with pytest.raises(CheckFailed, match="not the canonical form"):
        parse_manifest(forged, content, "store", Verifier(outputs.backups))
