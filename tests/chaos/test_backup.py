"""Backups that are killed at random points: never half a backup, and the next ones are whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from kilo.backup.catalogue import read_catalogue, read_manifest
from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.run import complete, run_backup
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.backup.verify import Verification
from kilo.contract import StackOutputs
from tests.runtime.backup import conftest

# The same real stores as the backup's own tests have.
cloud = conftest.cloud
filled_url = conftest.filled_url
gcs = conftest.gcs
key = conftest.key
moto = conftest.moto
outputs = conftest.outputs
outputs_file = conftest.outputs_file
stores = conftest.stores

KILLS = 30


def test_killed_at_random_points(
    outputs: StackOutputs,
    stores: dict[str, Store],
    key: BackupKey,
    outputs_file: Path,
    filled_url: str,
) -> None:
    del outputs_file
    with psycopg.connect(filled_url, autocommit=True) as connection:
        # More than a part of an upload, of what does not compress.
        connection.execute(
            "CREATE TABLE noise AS SELECT i, (SELECT string_agg(sha512((i * 1000 + j)::text::bytea), '')"
            " FROM generate_series(1, 64) j) AS bytes FROM generate_series(1, 12000) i"
        )
    environment = os.environ | {"DATABASE_URL": filled_url}
    began = time.monotonic()
    subprocess.run(conftest.RUN, env=environment, check=True, capture_output=True)
    whole_seconds = time.monotonic() - began
    chance = random.Random(7)
    ended: list[int] = []
    for number in range(KILLS):
        process = subprocess.Popen(
            conftest.RUN, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Spread over the whole run, its end more closely: there the manifests are written.
        share = (number + chance.random()) / KILLS
        time.sleep(whole_seconds * (0.15 + 0.9 * share**0.7))
        process.send_signal(signal.SIGKILL)
        ended.append(process.wait())
    assert ended.count(-signal.SIGKILL) >= KILLS // 2, f"most were killed in the middle: {ended}"

    def check() -> list[str]:
        catalogue = read_catalogue(stores)
        verification = Verification(outputs.backups, stores, catalogue, key)
        return [
            f"{check.backup} {check.store} {check.subject}: {check.error}"
            for entry in catalogue.entries
            for check in verification.check(entry)
            if check.error is not None and not (check.detail == "missing" and check.subject == "manifest")
        ]

    # What is listed is whole where it is listed; one store may lack it.
    assert check() == []
    half = [entry for entry in read_catalogue(stores).entries if len(entry.stores) == 1]
    print(f"{ended.count(-signal.SIGKILL)} of {KILLS} killed; {len(half)} backups in one store only")
    for entry in half:
        [source] = entry.stores
        [target] = stores.keys() - entry.stores
        manifest = read_manifest(stores[source], entry.key, Verifier(outputs.backups))
        complete(outputs, stores[source], target, stores[target], manifest)
    assert [entry for entry in read_catalogue(stores).entries if len(entry.stores) == 1] == []
    assert run_backup(outputs, stores, filled_url).whole
    assert check() == []
    assert [result.error for result in drill(stores, Verifier(outputs.backups), key)] == [None, None]
    with psycopg.connect(filled_url) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('kilo backup', 'pg_dump')"
        ).fetchone()
    assert left == (0,), "no session of a killed run holds a snapshot"
