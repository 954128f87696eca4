"""Rotation of a table while it is read: ``python -m benchmarks.fle_rotation [ROWS]``.

One field of every row is re-encrypted, with PostgreSQL on the same machine: by two workers as fast as they
can, and by one that is limited, as ``kilo fle rotate run --rows-per-second`` does it. A reader in a process
of its own reads and decrypts one random row after another, before and during the rotation.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import psutil
import psycopg

from benchmarks.fle_stage import cipher, stage
from benchmarks.rounds import save
from kilo.contract import EncryptedTable, KeyReference
from kilo.fle.datakey import XaesKey
from kilo.fle.keytable import DATA
from kilo.fle.rotation.backfill import Backfill, Work, worker_connection
from kilo.fle.rotation.columns import Columns
from kilo.fle.rotation.convert import Converter, Goal
from kilo.fle.rotation.coverage import coverage
from kilo.fle.rotation.record import switch
from kilo.fle.rotation.rewrite import ValueRewriter

SPEC = EncryptedTable(table="customers", context="customers", columns={"email": "email"})


def fill(database: str, keys: dict[str, KeyReference], rows: int) -> None:
    """Encrypted rows, by COPY."""
    fields = cipher(database, keys)
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE TABLE customers (id bigint PRIMARY KEY, tenant text NOT NULL, email text)"
            " WITH (fillfactor = 50)"
        )
        with connection.cursor().copy("COPY customers FROM STDIN") as copy:
            for start in range(0, rows, 10_000):
                ids = list(range(start, min(start + 10_000, rows)))
                values = fields.encrypt_column(
                    "acme", "email", ids, [f"customer{each}@example.com" for each in ids]
                )
                for each, value in zip(ids, values, strict=True):
                    copy.write_row((each, "acme", value))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE customers")


def read_rows(database: str, keys: dict[str, KeyReference], rows: int, stop: Event, results: Any) -> None:
    """Read and decrypt random rows until told to stop; says each one's time and every failure."""
    fields = cipher(database, keys)
    fields.warm(["acme"])
    times: list[tuple[float, float]] = []
    failures = 0
    with psycopg.connect(database, autocommit=True) as connection:
        while not stop.is_set():
            row = random.randrange(rows)
            started = time.perf_counter()
            try:
                found = connection.execute("SELECT email FROM customers WHERE id = %s", (row,)).fetchone()
                assert found is not None
                assert fields.decrypt("acme", "email", row, found[0]) == f"customer{row}@example.com"
            except Exception:
                failures += 1
            times.append((time.time(), time.perf_counter() - started))
            time.sleep(0.002)
    results.put((times, failures))


def postgres_cpu() -> float:
    """Processor seconds of the PostgreSQL processes that live now, the server's checkpoints included."""
    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "postgres" in process.name():
                times = process.cpu_times()
                spent += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return spent


@dataclass(frozen=True)
class Way:
    """How the table is rotated: processes, rows a batch, rows a second of each."""

    name: str
    workers: int
    batch_rows: int
    rows_per_second: float | None


WAYS = (
    Way("as fast as it goes", workers=2, batch_rows=2000, rows_per_second=None),
    Way("limited, beside readers", workers=1, batch_rows=500, rows_per_second=28_000),
)


@dataclass
class Stage:
    """What the ways share."""

    database: str
    keys: dict[str, KeyReference]
    rows: int

    def begin(self, plan: str) -> int:
        """Make the next key, and a rotation whose evidence is kept; the key's number."""
        new = cipher(self.database, self.keys).keyring.create("acme", DATA, "pending")
        with psycopg.connect(self.database) as connection:
            connection.execute("UPDATE fle_rotations SET state = 'finalized'")
            connection.execute(
                "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state)"
                " VALUES (%s, 'acme', '{}', 'benchmark', 'running')",
                (plan,),
            )
        return new


def work(stage: Stage, way: Way, goal: tuple[str, int], ready: Barrier, results: Any) -> None:
    """One worker, to its end; ``goal`` is the plan and the key that values go under."""
    plan, new = goal
    fields = cipher(stage.database, stage.keys)
    evidence, _ = fields.keyring.reader("acme", new)
    assert isinstance(evidence, XaesKey)
    with worker_connection(stage.database) as connection:
        columns = Columns.load(connection, SPEC)
        worker = Backfill(
            connection,
            ValueRewriter(columns, Converter(fields, "acme", Goal(new), evidence.evidence_key(plan))),
            Work(plan, "forward", way.batch_rows, way.rows_per_second),
            lambda: True,
        )
        ready.wait()
        began = time.process_time()
        worker.run(lambda _: None)
    results.put((worker.progress.changed, sorted(worker.progress.failed), time.process_time() - began))


def measure(stage: Stage, way: Way, plan: str, old: int) -> tuple[int, dict[str, Any]]:
    """Rotate the whole table one way while it is read: the new key, and what was measured.

    It begins when every worker is ready: interpreters that start up are no part of it.
    """
    spawn = multiprocessing.get_context("spawn")
    new = stage.begin(plan)
    stop, read, done = spawn.Event(), spawn.Queue(), spawn.Queue()
    reader = spawn.Process(target=read_rows, args=(stage.database, stage.keys, stage.rows, stop, read))
    reader.start()
    time.sleep(8)
    quiet_until = time.time()
    with psycopg.connect(stage.database) as connection:
        switch(connection, "acme", old, new)
    ready = spawn.Barrier(way.workers + 1)
    workers = [
        spawn.Process(target=work, args=(stage, way, (plan, new), ready, done)) for _ in range(way.workers)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    began, database_began = time.time(), postgres_cpu()
    changed = [done.get() for _ in workers]
    ended, database_cpu = time.time(), postgres_cpu() - database_began
    stop.set()
    times, failures = read.get()
    for process in (reader, *workers):
        process.join()
    with psycopg.connect(stage.database) as connection:
        covered = [(each.under, each.values) for each in coverage(connection, [SPEC], ["acme"])]
    before = [taken for at, taken in times if at < quiet_until]
    during = [taken for at, taken in times if began <= at <= ended]
    return new, {
        "workers": way.workers,
        "batch_rows": way.batch_rows,
        "limit_rows_per_second": way.rows_per_second,
        "rows_per_second": stage.rows / (ended - began),
        "processor_microseconds_a_row": {
            "workers": sum(each[2] for each in changed) / stage.rows * 1e6,
            "postgresql": database_cpu / stage.rows * 1e6,
        },
        "changed": sum(each[0] for each in changed),
        "not_decrypted": [line for each in changed for line in each[1]],
        "covered": covered,
        "reads": {"before": len(before), "during": len(during), "failed": failures},
        "reader_p99_ms": {
            "before": statistics.quantiles(before, n=100)[98] * 1000,
            "during": statistics.quantiles(during, n=100)[98] * 1000,
        },
    }


def main() -> None:
    """Measure, print and save."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    results: dict[str, Any] = {"rows": rows, "ways": {}, "ratios": {}}
    lines: list[str] = []
    with stage() as (database, keys):
        fill(database, keys, rows)
        place = Stage(database, keys, rows)
        key = cipher(database, keys).keyring.writer("acme")[0].key_id
        for number, way in enumerate(WAYS):
            key, found = measure(place, way, str(number) * 64, key)
            p99 = found["reader_p99_ms"]
            results["ways"][way.name] = found
            results["ratios"] |= {
                f"{way.name}: rows a second against 20,000": found["rows_per_second"] / 20_000,
                f"{way.name}: reader's p99 during against before": p99["during"] / p99["before"],
            }
            spent = found["processor_microseconds_a_row"]
            lines += [
                f"{way.name}: {found['rows_per_second']:,.0f} rows/s, {way.workers} workers",
                f"  processor time a row: workers {spent['workers']:.1f} µs,"
                f" PostgreSQL {spent['postgresql']:.1f} µs",
                f"  reads failed: {found['reads']['failed']}; reader's p99 {p99['during']:.2f} ms during,"
                f" {p99['before']:.2f} ms before: {p99['during'] / p99['before']:.2f}",
            ]
    lines.append("To reach in one way: at least 20,000 rows/s with a p99 of at most twice that of before.")
    save("fle_rotation", results, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
