"""The primary region goes: none of its stores and keys answers, and the database comes back without them.

AWS's servers of the sandbox are behind a proxy that answers nothing which is signed for that region. A new
database server is not shown: the restored database is a second one on the stage's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import tuple_row

from tests.accept.commands import Refused, run
from tests.e2e.conftest import Stage
from tests.runtime.registry.proxy import Proxy

REGION = "eu-central-1"
TENANT, FIELD = "acme", "email"
_DATABASE = "recovered"


@dataclass(frozen=True)
class Recovered:
    """What came back: rows, and how long the restore took."""

    rows: int
    seconds: float


def recover(stage: Stage) -> Recovered:
    """Walk docs/runbooks/lost-region.md: back up, lose the region, restore, read an encrypted field.

    Raises:
        Refused: a step ended badly, or the field is another than before.
    """
    variables: Mapping[str, str] = json.loads((stage.home / "environment.json").read_bytes())
    backup = json.loads(run(stage, "backup", "run", "--json"))["backup"]
    source = variables["DATABASE_URL"]
    fingerprint, stored = _encrypted_event(source)
    place = ("--tenant", TENANT, "--field", FIELD, "--row", fingerprint, "--pointer", "")
    before = run(stage, "fle", "decrypt", *place, given=stored)

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
            "PATH": f"{stage.home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        restore = ("backup", "restore", backup, "--from", "secondary", "--no-globals", "--json")
        restored = json.loads(run(stage, *restore, variables=without))
        with psycopg.connect(target, row_factory=tuple_row) as connection:
            [(again,)] = connection.execute(
                "SELECT payload ->> %s FROM events WHERE fingerprint = %s AND tenant = %s",
                (FIELD, fingerprint, TENANT),
            ).fetchall()
        after = run(stage, "fle", "decrypt", *place, variables=without, given=again)
    finally:
        clouds.close()
    if after != before or stored == before:
        msg = f"{TENANT}'s {FIELD} is not what it was before the region went"
        raise Refused(msg)
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
        raise Refused(msg)
    return found
