"""The primary region goes: none of its stores and keys answers, and the database comes back without them.

AWS's servers of the sandbox are behind a proxy that answers nothing which is signed for that region. A new
database server is not shown: the restored database is a second one on the stage's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import tuple_row

from sandbox.engine.environment import overlay
from tests.e2e.conftest import PATIENCE, Stage
from tests.runtime.registry.proxy import Proxy

REGION = "eu-central-1"
TENANT, FIELD = "acme", "email"
_DATABASE = "recovered"


class NotRecovered(Exception):
    """What the runbook says did not come about."""


@dataclass(frozen=True)
class Recovered:
    """What came back: rows, and how long the restore took."""

    rows: int
    seconds: float


def recover(stage: Stage) -> Recovered:
    """Walk docs/runbooks/lost-region.md: back up, lose the region, restore, read an encrypted field.

    Raises:
        NotRecovered: a step ended badly, or the field is another than before.
    """
    variables: Mapping[str, str] = json.loads((stage.home / "environment.json").read_bytes())
    backup = json.loads(_kilo(stage, variables, "backup", "run", "--json"))["backup"]
    source = variables["DATABASE_URL"]
    fingerprint, stored = _encrypted_event(source)
    place = ("--tenant", TENANT, "--field", FIELD, "--row", fingerprint, "--pointer", "")
    before = _kilo(stage, variables, "fle", "decrypt", *place, given=stored)

    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE}")
        connection.execute(f"CREATE DATABASE {_DATABASE}")
    target = urlsplit(source)._replace(path=f"/{_DATABASE}").geturl()
    clouds = Proxy(variables["AWS_ENDPOINT_URL"])
    clouds.lost_regions = {REGION}
    try:
        without = {
            **variables,
            "AWS_ENDPOINT_URL": clouds.url,
            "KILO_RESTORE_URL": target,
            "DATABASE_URL": target,
        }
        restore = ("backup", "restore", backup, "--from", "secondary", "--no-globals", "--json")
        restored = json.loads(_kilo(stage, without, *restore))
        with psycopg.connect(target, row_factory=tuple_row) as connection:
            [(again,)] = connection.execute(
                "SELECT payload ->> %s FROM events WHERE fingerprint = %s AND tenant = %s",
                (FIELD, fingerprint, TENANT),
            ).fetchall()
        after = _kilo(stage, without, "fle", "decrypt", *place, given=again)
    finally:
        clouds.close()
    if after != before or stored == before:
        msg = f"{TENANT}'s {FIELD} is not what it was before the region went"
        raise NotRecovered(msg)
    return Recovered(restored["rows"], restored["duration_seconds"])


def _encrypted_event(url: str) -> tuple[str, str]:
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        found = connection.execute(
            "SELECT fingerprint, payload ->> %s FROM events WHERE tenant = %s AND payload ->> %s IS NOT NULL"
            " ORDER BY received_at LIMIT 1",
            (FIELD, TENANT, FIELD),
        ).fetchone()
    if found is None:
        msg = f"no event of {TENANT} has the field {FIELD}"
        raise NotRecovered(msg)
    return found


def _kilo(stage: Stage, variables: Mapping[str, str], *arguments: str, given: str = "") -> str:
    """A command with the stage's variables, changed as they may be."""
    path = f"{stage.home / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "kilo"), *arguments],
        cwd=stage.directory,
        env=overlay({**variables, "PATH": path}),
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        msg = f"kilo {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()[-600:]}"
        raise NotRecovered(msg)
    return done.stdout
