"""A million rows change their key while they are read and written, and while the rotation is killed.

``KILO_ROTATION_ROWS`` takes another number of rows.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from kilo.contract import EncryptedTable
from kilo.fle import CacheLimits, FieldCipher
from kilo.fle.audit.log import read
from kilo.fle.audit.verify import Report, check_chain
from kilo.fle.rotation.coverage import coverage
from kilo.fle.rotation.steps import Rotations
from tests.runtime.fle.conftest import PEOPLE, Stage, aws, moto_url, no_time_to_settle, stage
from tests.runtime.fle.test_rotation import approved

__all__ = ["aws", "moto_url", "no_time_to_settle", "stage"]  # fixtures

ROWS = int(os.environ.get("KILO_ROTATION_ROWS", "1000000"))
TABLE = EncryptedTable(table="customers", context="customers", columns={"email": "email"})


def email(row: int) -> str:
    return f"customer{row}@example.com"


def fill(stage: Stage, cipher: FieldCipher) -> None:
    with psycopg.connect(stage.url) as connection:
        connection.execute(
            "CREATE TABLE customers (id bigint PRIMARY KEY, tenant text NOT NULL, email text)"
            " WITH (fillfactor = 50)"
        )
        with connection.cursor().copy("COPY customers FROM STDIN") as copy:
            for start in range(0, ROWS, 10_000):
                rows = range(start, min(start + 10_000, ROWS))
                values = cipher.encrypt_column("gold", "email", rows, [email(row) for row in rows])
                for row, value in zip(rows, values, strict=True):
                    copy.write_row((row, "gold", value))


class Traffic(threading.Thread):
    """Reads random rows, or writes them anew, until told to stop; keeps every failure."""

    def __init__(self, stage: Stage, cipher: FieldCipher, *, writes: bool) -> None:
        super().__init__()
        self.url, self.cipher, self.writes = stage.url, cipher, writes
        self.stopping, self.done, self.failures = threading.Event(), 0, list[Exception]()

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.stopping.is_set():
                row = random.randrange(ROWS)
                try:
                    self.write(connection, row) if self.writes else self.read(connection, row)
                except Exception as error:
                    self.failures.append(error)
                self.done += 1
                time.sleep(0.002)

    def write(self, connection: psycopg.Connection[object], row: int) -> None:
        value = self.cipher.encrypt("gold", "email", row, email(row))
        connection.execute("UPDATE customers SET email = %s WHERE id = %s", (value, row))

    def read(self, connection: psycopg.Connection[tuple[str]], row: int) -> None:
        found = connection.execute("SELECT email FROM customers WHERE id = %s", (row,)).fetchone()
        assert found is not None
        assert self.cipher.decrypt("gold", "email", row, found[0]) == email(row)


def command(stage: Stage, folder: Path, plan: str) -> subprocess.Popen[bytes]:
    outputs = folder / "outputs.json"
    outputs.write_text(stage.outputs.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-m", "kilo.cli", "fle", "rotate", "run", plan, "--workers", "2"],
        env={**os.environ, "KILO_OUTPUTS": str(outputs), "DATABASE_URL": stage.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def moved(stage: Stage) -> int:
    return stage.sql("SELECT coalesce(sum(rows_changed), 0)::bigint FROM fle_rotation_batches")[0][0]


@pytest.mark.timeout(1500)
def test_a_million_rows_rotate_under_reads_writes_and_kills(stage: Stage, tmp_path: Path) -> None:
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (TABLE,)})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    # A writer of the old version: it knows nothing of the new key for as long as it lives.
    old = stage.cipher(limits=CacheLimits(max_age_seconds=1200, outage_seconds=0))
    fill(stage, old)
    rotations = Rotations(stage.outputs, stage.url, stage.cipher())
    plan = approved(stage, rotations).digest()
    traffic = [
        Traffic(stage, old, writes=True),
        Traffic(stage, stage.cipher(limits=CacheLimits(max_age_seconds=5)), writes=True),
        Traffic(stage, stage.cipher(), writes=False),
        Traffic(stage, stage.cipher(limits=CacheLimits(max_age_seconds=5)), writes=False),
    ]
    for each in traffic:
        each.start()
    began = time.monotonic()
    try:
        for share in (0.2, 0.5, 0.8):
            running = [command(stage, tmp_path, plan) for _ in range(2)]
            while moved(stage) < ROWS * share and any(each.poll() is None for each in running):
                time.sleep(0.2)
            for each in running:
                if each.poll() is None:
                    os.killpg(each.pid, signal.SIGKILL)
                each.communicate()
        last = command(stage, tmp_path, plan)
        while moved(stage) < ROWS and last.poll() is None:
            time.sleep(0.2)
        # In its time, a process that knows only the old key has fetched keys anew.
        traffic[0].stopping.set()
        _, complained = last.communicate(timeout=900)
        assert last.returncode == 0, complained
    finally:
        for each in traffic:
            each.stopping.set()
        for each in traffic:
            each.join()
    took = time.monotonic() - began
    print(f"{ROWS} rows in {took:.0f} s, {sum(each.done for each in traffic)} reads and writes")
    assert [error for each in traffic for error in each.failures] == []
    assert min(each.done for each in traffic) > 0
    counts = rotations.verify(plan, "tester")
    assert (counts["values"], counts["failed"], counts["plain"]) == (ROWS, 0, 0)
    assert counts["same"] + counts["written_since"] == ROWS
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    with psycopg.connect(stage.url) as connection:
        covered = [(each.under, each.values) for each in coverage(connection, [TABLE], ["gold"])]
        report = Report()
        check_chain(read(connection), report, "database")
    assert covered == [("2", ROWS)]
    assert report.problems == []
