"""Rotation of a table while it is read: ``python -m benchmarks.fle_rotation [ROWS]``.

Two workers re-encrypt one field of every row, with PostgreSQL on the same machine. A reader in a process
of its own reads and decrypts one random row after another, before and during the rotation.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import statistics
import sys
import threading
import time
from multiprocessing.synchronize import Event
from typing import Any

import psutil
import psycopg

from benchmarks.fle_stage import cipher, stage
from benchmarks.rounds import save
from runtime.contract import EncryptedTable, KeyReference
from runtime.fle.datakey import XaesKey
from runtime.fle.keytable import DATA
from runtime.fle.rotation.backfill import Backfill, Work, worker_connection
from runtime.fle.rotation.columns import Columns
from runtime.fle.rotation.convert import Converter, Goal
from runtime.fle.rotation.coverage import coverage
from runtime.fle.rotation.record import switch
from runtime.fle.rotation.rewrite import ValueRewriter

SPEC = EncryptedTable(table="customers", context="customers", columns={"email": "email"})
PLAN = "0" * 64
WORKERS = 2


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


def work(database: str, keys: dict[str, KeyReference], new: int, results: Any) -> None:
    """One worker, to its end."""
    fields = cipher(database, keys)
    evidence, _ = fields.keyring.reader("acme", new)
    began = time.process_time()
    assert isinstance(evidence, XaesKey)
    with worker_connection(database) as connection:
        columns = Columns.load(connection, SPEC)
        worker = Backfill(
            connection,
            ValueRewriter(columns, Converter(fields, "acme", Goal(new), evidence.evidence_key(PLAN))),
            Work(PLAN, "forward"),
            lambda: True,
        )
        worker.run(lambda _: None)
    results.put((worker.progress.changed, sorted(worker.progress.failed), time.process_time() - began))


def main() -> None:
    """Measure, print and save."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    spawn = multiprocessing.get_context("spawn")
    with stage() as (database, keys):
        fill(database, keys, rows)
        fields = cipher(database, keys)
        old = fields.keyring.writer("acme")[0].key_id
        new = fields.keyring.create("acme", DATA, "pending")
        with psycopg.connect(database) as connection:
            connection.execute(
                "INSERT INTO fle_rotations (plan_hash, tenant, plan, requester, state)"
                " VALUES (%s, 'acme', '{}', 'benchmark', 'running')",
                (PLAN,),
            )
        stop, read, done = spawn.Event(), spawn.Queue(), spawn.Queue()
        reader = spawn.Process(target=read_rows, args=(database, keys, rows, stop, read))
        reader.start()
        time.sleep(8)
        with psycopg.connect(database) as connection:
            switch(connection, "acme", old, new)
        began, database_began = time.time(), postgres_cpu()
        workers = [spawn.Process(target=work, args=(database, keys, new, done)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        watcher = threading.Thread(target=lambda: [worker.join() for worker in workers])
        watcher.start()
        changed = [done.get() for _ in workers]
        database_cpu = postgres_cpu() - database_began
        worker_cpu = sum(each[2] for each in changed)
        watcher.join()
        ended = time.time()
        stop.set()
        times, failures = read.get()
        reader.join()
        with psycopg.connect(database) as connection:
            covered = [(each.under, each.values) for each in coverage(connection, [SPEC], ["acme"])]
    before = [taken for at, taken in times if at < began]
    during = [taken for at, taken in times if began <= at <= ended]
    results: dict[str, Any] = {
        "rows": rows,
        "rows_per_second": rows / (ended - began),
        "seconds": ended - began,
        "processor_microseconds_a_row": {
            "workers": worker_cpu / rows * 1e6,
            "postgresql": database_cpu / rows * 1e6,
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
    p99 = results["reader_p99_ms"]["during"] / results["reader_p99_ms"]["before"]
    results["ratios"] = {
        "rows a second against 20,000, at least 1": results["rows_per_second"] / 20_000,
        "reader's p99 during against before, at most 2": p99,
    }
    text = (
        f"{rows:,} rows in {ended - began:.1f} s: {rows / (ended - began):,.0f} rows/s, {WORKERS} workers\n"
        f"processor time a row: workers {worker_cpu / rows * 1e6:.1f} µs,"
        f" PostgreSQL {database_cpu / rows * 1e6:.1f} µs\n"
        f"reads failed: {failures} of {len(times)}; reader's p99 during / before: {p99:.2f}\n"
        f"{json.dumps(results['reader_p99_ms'])}\n"
    )
    save("fle_rotation", results, text)


if __name__ == "__main__":
    main()
