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

from benchmarks.fle_stage import SCOPE, cipher, stage
from benchmarks.rounds import save
from kilo.contract import EncryptedTable, KeyReference, StackOutputs
from kilo.fle.rotation import approval
from kilo.fle.rotation.backfill import Progress
from kilo.fle.rotation.coverage import coverage
from kilo.fle.rotation.steps import Rotations
from tests.runtime.fle.conftest import PEOPLE, make_outputs

SPEC = EncryptedTable(table="customers", context="customers", columns={"email": "email"})


def outputs_of(keys: dict[str, KeyReference]) -> StackOutputs:
    """A stage with people who sign, and the table."""
    made = make_outputs({tenant: key.key for tenant, key in keys.items()}, "none")
    acme = made.tenants["acme"].model_copy(update={"encrypted_fields": SCOPE["acme"]})
    settings = made.field_encryption.model_copy(update={"tables": (SPEC,)})
    return made.model_copy(update={"field_encryption": settings, "tenants": {**made.tenants, "acme": acme}})


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
    outputs: StackOutputs

    def steps(self) -> Rotations:
        """The steps of a rotation, as ``kilo fle rotate`` takes them."""
        return Rotations(self.outputs, self.database, cipher(self.database, self.keys))

    def plan(self) -> str:
        """A plan that its requester signed and two others approved."""
        steps = self.steps()
        plan = steps.plan("acme", "rekey", "requester", PEOPLE["requester"]).digest()
        for name in ("approver.one", "approver.two"):
            steps.approve(plan, approval.sign(self.outputs, "approve", plan, name, PEOPLE[name]))
        return plan

    def finish(self, plan: str) -> tuple[dict[str, int], float]:
        """Verify and finalize; what was verified, and in how many seconds."""
        began = time.time()
        counts = self.steps().verify(plan, "benchmark")
        took = time.time() - began
        with psycopg.connect(self.database) as connection:
            # Nobody waits here for the processes that may have the old key in memory: there are none.
            connection.execute("UPDATE fle_rotations SET switched_at = switched_at - interval '90 days'")
        self.steps().finalize(plan, "requester", PEOPLE["requester"])
        return counts, took


def work(stage: Stage, way: Way, plan: str, ready: Barrier, results: Any) -> None:
    """One worker, to its end."""
    steps, failed, last = stage.steps(), list[str](), Progress()

    def keep(progress: Progress) -> None:
        nonlocal last
        last = progress

    ready.wait()
    began = time.process_time()
    _, failed = steps.run(plan, "benchmark", keep, way.batch_rows, way.rows_per_second)
    results.put((last.changed, failed, time.process_time() - began))


def measure(stage: Stage, way: Way) -> dict[str, Any]:
    """Rotate the whole table one way while it is read, from plan to finalize: what was measured.

    It begins when every worker is ready: interpreters that start up are no part of it.
    """
    spawn = multiprocessing.get_context("spawn")
    plan = stage.plan()
    stop, read, done = spawn.Event(), spawn.Queue(), spawn.Queue()
    reader = spawn.Process(target=read_rows, args=(stage.database, stage.keys, stage.rows, stop, read))
    reader.start()
    time.sleep(8)
    quiet_until = time.time()
    stage.steps().start(plan, "benchmark")
    ready = spawn.Barrier(way.workers + 1)
    workers = [spawn.Process(target=work, args=(stage, way, plan, ready, done)) for _ in range(way.workers)]
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
    verified, verifying = stage.finish(plan)
    before = [taken for at, taken in times if at < quiet_until]
    during = [taken for at, taken in times if began <= at <= ended]
    return {
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
        "verified": verified,
        "verified_rows_per_second": stage.rows / verifying,
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
        place = Stage(database, keys, rows, outputs_of(keys))
        for way in WAYS:
            found = measure(place, way)
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
                f"  verified: {found['verified']['same']:,} of {found['verified']['converted']:,} the same,"
                f" {found['verified_rows_per_second']:,.0f} rows/s",
                f"  reads failed: {found['reads']['failed']}; reader's p99 {p99['during']:.2f} ms during,"
                f" {p99['before']:.2f} ms before: {p99['during'] / p99['before']:.2f}",
            ]
    lines.append("To reach in one way: at least 20,000 rows/s with a p99 of at most twice that of before.")
    save("fle_rotation", results, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
