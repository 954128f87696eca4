"""Once its lock is over a backup goes, its objects in any order: no damage, and nothing to undo."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilo.backup.catalogue import read_catalogue
from kilo.backup.cli import app
from kilo.backup.keys import BackupKey
from kilo.backup.locks import is_over
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from tests.runtime.backup.test_backup import back_up, checks_of, wrong

Stores = dict[str, Store]


def after_the_lock(outputs: StackOutputs) -> StackOutputs:
    """The same stage, whose locks last no time."""
    stores = {
        name: bucket.model_copy(update={"retention_days": 0})
        for name, bucket in outputs.backups.buckets.items()
    }
    return outputs.model_copy(update={"backups": outputs.backups.model_copy(update=stores)})


def test_a_lock_is_over_after_its_days(outputs: StackOutputs) -> None:
    now = datetime.now(UTC)
    assert not is_over(now - timedelta(days=6.9), outputs.backups.primary)
    assert is_over(now - timedelta(days=7.1), outputs.backups.primary)


@pytest.mark.parametrize("part", ["database.dump", "manifest"])
def test_what_is_missing_is_damage_only_while_its_lock_holds(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str, part: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    gone = manifest.key() if part == "manifest" else manifest.objects[part].key
    stores["secondary"].delete(gone)
    assert ("secondary", part) in wrong(checks_of(outputs, stores, key))
    later = checks_of(after_the_lock(outputs), stores, key)
    assert wrong(later) == set()
    [said] = [check.detail for check in later if (check.store, check.subject) == ("secondary", part)]
    assert said == "gone: its lock is over"


def test_the_chain_may_lose_what_was_pruned_between_two_that_were_kept(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    made = [back_up(outputs, stores, filled_url).manifest for _ in range(3)]
    only = {"secondary": stores["secondary"]}
    only["secondary"].delete(made[1].key())
    assert ("secondary", "chain") in wrong(checks_of(outputs, only, key, made[2].id))
    assert wrong(checks_of(after_the_lock(outputs), only, key, made[2].id)) == set()


def test_all_that_came_before_can_not_be_removed_unseen_while_locked(
    outputs: StackOutputs, stores: Stores, key: BackupKey, filled_url: str
) -> None:
    made = [back_up(outputs, stores, filled_url).manifest for _ in range(2)]
    only = {"secondary": stores["secondary"]}
    only["secondary"].delete(made[0].key())
    assert wrong(checks_of(outputs, only, key)) == {("secondary", "chain")}


def test_completing_brings_nothing_back(
    outputs: StackOutputs, outputs_file: Path, stores: Stores, filled_url: str
) -> None:
    manifest = back_up(outputs, stores, filled_url).manifest
    stores["secondary"].delete(manifest.key())
    outputs_file.write_text(json.dumps(after_the_lock(outputs).model_dump(mode="json")))
    assert CliRunner().invoke(app, ["complete"]).stdout.strip() == "nothing to complete"
    assert read_catalogue(stores).find(manifest.id).stores == ("primary",)
    outputs_file.write_text(json.dumps(outputs.model_dump(mode="json")))
    outcome = CliRunner().invoke(app, ["complete"])
    assert not isinstance(outcome.exception, CheckFailed), outcome.output
    assert read_catalogue(stores).find(manifest.id).stores == ("primary", "secondary")
