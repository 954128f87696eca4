"""A backup to both stores against pg_dump to /dev/null, on the same database in the same run.

pg_dump is measured as backups run it (custom format, zstd at level 1), which is what their speed is held
against, as it compresses by itself (gzip), and plain. A backup does more than pg_dump: it counts and hashes
every row, encrypts, and uploads twice. The stores are moto and fake-gcs-server on the same processors, with
their files in memory; what they take, which a cloud's would not take here, is shown beside, and so is the
limit that they set: an upload of the same bytes, to both at once, of no dump at all. Memory is measured for
four times the bytes as well: it must not grow with them, once the buffers of both uploads are full (a dump of
some 130 MB).

    make bench NAME=backup ARGS="--rows 4000000"
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg
import urllib3

from benchmarks.harness import Cost, measure
from benchmarks.rounds import save
from kilo.backup.fanout import fan_out
from kilo.backup.programs import environment_of
from kilo.backup.stores import open_stores
from kilo.contract import StackOutputs, load_outputs
from kilo.testing.servers.postgres import PostgresServer
from sandbox import toolchain
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from tests.runtime.backup.conftest import REGION, RUN, make_signing_key, stage_outputs

UPLOADED = "KILO_BENCH_UPLOADED"
TIMES = "KILO_BENCH_TIMES"
PG_DUMP = "pg_dump to /dev/null, as backups run it (zstd:1)"
PG_DUMP_GZIP = "pg_dump to /dev/null, its default compression (gzip)"
PG_DUMP_PLAIN = "pg_dump to /dev/null, plain"
UPLOAD = "upload of the same bytes to both stores, no dump"
UPLOAD_FOUR = "upload of four times the bytes"
KILO = "kilo backup run, both stores"
COMMANDS = {
    PG_DUMP: ["sh", "-c", "exec pg_dump --format=custom --compress=zstd:1 --large-objects > /dev/null"],
    PG_DUMP_GZIP: ["sh", "-c", "exec pg_dump --format=custom --large-objects > /dev/null"],
    PG_DUMP_PLAIN: ["sh", "-c", "exec pg_dump > /dev/null"],
    UPLOAD: [sys.executable, "-c", "from benchmarks.backup import upload; upload()"],
    UPLOAD_FOUR: [
        "env",
        f"{TIMES}=4",
        sys.executable,
        "-c",
        "from benchmarks.backup import upload; upload()",
    ],
    KILO: RUN,
}
SLOW = PG_DUMP_GZIP
"""Four times as long as all others; one round is enough to see that."""
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Turn:
    """What a program cost, and the processor seconds of the servers meanwhile."""

    cost: Cost
    database_seconds: float
    stores_seconds: float


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kilo-bench-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        directory = Path(name)
        servers = (
            PostgresServer(directory / "postgres", settings={"fsync": "off"}),
            MotoServer(directory / "moto"),
            FakeGcsServer(directory / "gcs"),
        )
        postgres, moto, gcs = servers
        for server in servers:
            server.start()
        try:
            servers_of = Servers(postgres, moto, gcs)
            compare(servers_of, directory, rows=arguments.rows, rounds=arguments.rounds)
        finally:
            for server in servers:
                server.stop()


class Servers:
    """The database and both stores."""

    def __init__(self, postgres: PostgresServer, moto: MotoServer, gcs: FakeGcsServer) -> None:
        self.postgres, self.aws, self.gcs = postgres, moto.url, gcs.url
        self._turns = 0
        self._stores = [pid for pid in (moto.pid, gcs.pid) if pid]

    def turn(self, argv: Sequence[str], url: str) -> Turn:
        """Run a program on the database at ``url``, with buckets of its own.

        moto lists the versions of a bucket by reading them.
        """
        self._turns += 1
        outputs = stage_of(self.gcs, f"backups-{self._turns}")
        Path(os.environ["KILO_OUTPUTS"]).write_text(outputs.model_dump_json())
        database, stores = self._seconds()
        cost = measure(argv, environment_of(url) | {"DATABASE_URL": url})
        # A backend's seconds count once it has ended.
        time.sleep(0.5)
        database_after, stores_after = self._seconds()
        return Turn(cost, database_after - database, stores_after - stores)

    def _seconds(self) -> tuple[float, float]:
        postmaster = self.postgres.pid
        assert postmaster is not None
        return processor_seconds(postmaster), sum(map(processor_seconds, self._stores))


def processor_seconds(pid: int) -> float:
    """What a process has taken, with its children that have ended (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def compare(servers: Servers, directory: Path, *, rows: int, rounds: int) -> None:
    """Measure all in turn, and show the median round of each."""
    postgres = servers.postgres
    os.environ |= {
        "AWS_ENDPOINT_URL": servers.aws,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": REGION,
        "STORAGE_EMULATOR_HOST": servers.gcs,
        "PATH": f"{toolchain.path('postgres')}:{os.environ['PATH']}",
        "KILO_OUTPUTS": str(directory / "outputs.json"),
        UPLOADED: str(directory / "dump"),
    }
    url = postgres.url
    megabytes = fill(url, rows)
    dumped = ["pg_dump", "--format=custom", "--compress=zstd:1", f"--file={os.environ[UPLOADED]}"]
    measure(dumped, environment_of(url))
    turns: dict[str, list[Turn]] = {}
    for number in range(rounds):
        for name, argv in COMMANDS.items():
            if name != SLOW or not number:
                turns.setdefault(name, []).append(servers.turn(argv, url))
    seconds = {name: statistics.median(turn.cost.seconds for turn in found) for name, found in turns.items()}
    client = {
        name: statistics.median(turn.cost.processor_seconds for turn in found)
        for name, found in turns.items()
    }
    database = {
        name: statistics.median(turn.database_seconds for turn in found) for name, found in turns.items()
    }
    emulators = {
        name: statistics.median(turn.stores_seconds for turn in found) for name, found in turns.items()
    }
    peak = {name: max(turn.cost.peak_megabytes for turn in found) for name, found in turns.items()}
    ratios = {
        "speed_of_pg_dump": seconds[PG_DUMP] / seconds[KILO],
        "speed_of_pg_dump_with_its_default_compression": seconds[PG_DUMP_GZIP] / seconds[KILO],
        "speed_of_plain_pg_dump": seconds[PG_DUMP_PLAIN] / seconds[KILO],
        "share_of_processor_time_that_the_emulators_take": emulators[KILO]
        / (client[KILO] + database[KILO] + emulators[KILO]),
        "memory_of_four_times_the_bytes": peak[UPLOAD_FOUR] / peak[UPLOAD],
    }
    lines = [
        f"### Backup of {rows:,} rows, {megabytes:,.0f} MB in the database, median of {rounds} rounds",
        "",
        "| what | seconds | of pg_dump's speed | client's CPU s | PostgreSQL's | the stores' | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {seconds[name]:.2f} |"
            f" {'' if name == UPLOAD_FOUR else f'{seconds[PG_DUMP] / seconds[name]:.0%}'} |"
            f" {client[name]:.2f} | {database[name]:.2f} | {emulators[name]:.2f} | {peak[name]:.0f} |"
            for name in turns
        ),
        "",
        f"Memory of four times the bytes: {ratios['memory_of_four_times_the_bytes']:.2f} times.",
        "",
    ]
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    save(
        "backup",
        {"ratios": rounded, "seconds": seconds, "stores_seconds": emulators, "peak_megabytes": peak},
        "\n".join(lines),
    )


def upload() -> None:
    """Upload the file that the environment names to both stores at once, as a backup does."""
    opened = open_stores(load_outputs().backups)
    key = f"backups/{secrets.token_hex(8)}"

    def pieces() -> Iterator[bytes]:
        for _ in range(int(os.environ.get(TIMES, "1"))):
            with Path(os.environ[UPLOADED]).open("rb") as file:
                while piece := file.read(1024 * 1024):
                    yield piece

    writers = {name: lambda pipe, store=store: store.create(key, pipe) for name, store in opened.items()}
    if any(outcome.error for outcome in fan_out(pieces(), writers).values()):
        raise SystemExit(1)


def fill(url: str, rows: int) -> float:
    """Make ``rows`` events; the database's size in MB."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE events (id bigserial PRIMARY KEY, payload jsonb, at timestamptz)")
        connection.execute(
            "INSERT INTO events (payload, at) SELECT jsonb_build_object('id', i, 'text',"
            " md5(i::text) || md5((-i)::text)), now() FROM generate_series(1, %s) i",
            [rows],
        )
        connection.execute("VACUUM ANALYZE")
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return (size[0] if size else 0) / 1e6


def stage_of(gcs: str, bucket: str) -> StackOutputs:
    """Make both stores and the keys; the stage's outputs that name them."""
    s3 = boto3.client("s3")
    s3.create_bucket(
        Bucket=bucket,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 7}},
        },
    )
    urllib3.request("POST", f"{gcs}/storage/v1/b?project=bench", json={"name": bucket})
    kms = boto3.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    return stage_outputs(bucket, key, make_signing_key(kms))


if __name__ == "__main__":
    main()
