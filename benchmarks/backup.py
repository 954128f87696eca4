"""A backup to both stores against pg_dump to /dev/null, on the same database in the same run.

The stores are moto and fake-gcs-server on the same machine, which take processor time of their own that
a cloud's would not. pg_dump is measured with the compression that backups use (zstd), which is what its
speed is held against, and with its own default (gzip) beside it. Memory is measured for a quarter of the
rows as well: it must not grow with them.

    make bench NAME=backup ARGS="--rows 4000000"
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import boto3
import psycopg
import urllib3

from benchmarks.harness import Cost, measure
from benchmarks.rounds import save
from runtime.backup.database import environment_of
from sandbox import toolchain
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from sandbox.servers.postgres import PostgresServer
from tests.runtime.backup.conftest import REGION, make_signing_key, stage_outputs

PG_DUMP = "pg_dump to /dev/null"
PG_DUMP_GZIP = "pg_dump to /dev/null, its default compression"
KILO = "kilo backup run, both stores"
KILO_QUARTER = "kilo backup run, a quarter of the rows"
COMMANDS = {
    PG_DUMP: ["sh", "-c", "exec pg_dump --format=custom --compress=zstd --large-objects > /dev/null"],
    PG_DUMP_GZIP: ["sh", "-c", "exec pg_dump --format=custom --large-objects > /dev/null"],
    KILO: [
        sys.executable,
        "-c",
        "from runtime.cli import main; raise SystemExit(main())",
        "backup",
        "run",
        "--json",
    ],
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kilo-bench-") as name:
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
            compare(postgres, moto.url, gcs.url, directory, rows=arguments.rows, rounds=arguments.rounds)
        finally:
            for server in servers:
                server.stop()


def compare(postgres: PostgresServer, aws: str, gcs: str, directory: Path, *, rows: int, rounds: int) -> None:
    """Measure all in turn, and show the median round of each."""
    os.environ |= {
        "AWS_ENDPOINT_URL": aws,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": REGION,
        "STORAGE_EMULATOR_HOST": gcs,
        "PATH": f"{toolchain.path('postgres')}:{os.environ['PATH']}",
        "KILO_OUTPUTS": str(directory / "outputs.json"),
    }
    url, quarter = postgres.url, postgres.url_of("quarter")
    megabytes = fill(url, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE quarter")
    fill(quarter, rows // 4)
    (directory / "outputs.json").write_text(json.dumps(stores(gcs)))
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds):
        for name, argv in COMMANDS.items():
            if name == PG_DUMP_GZIP and number:
                continue  # Four times as long as all the others; once is enough to see that.
            costs.setdefault(name, []).append(measure(argv, environment_of(url) | {"DATABASE_URL": url}))
        costs.setdefault(KILO_QUARTER, []).append(
            measure(COMMANDS[KILO], environment_of(quarter) | {"DATABASE_URL": quarter})
        )
    seconds = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}
    processor = {
        name: statistics.median(cost.processor_seconds for cost in found) for name, found in costs.items()
    }
    peak = {name: max(cost.peak_megabytes for cost in found) for name, found in costs.items()}
    ratios = {
        "speed_of_pg_dump": seconds[PG_DUMP] / seconds[KILO],
        "speed_of_pg_dump_with_its_default_compression": seconds[PG_DUMP_GZIP] / seconds[KILO],
        "memory_of_four_times_the_rows": peak[KILO] / peak[KILO_QUARTER],
    }
    lines = [
        f"### Backup of {rows:,} rows, {megabytes:,.0f} MB in the database, median of {rounds} rounds",
        "",
        "| what | seconds | of pg_dump's speed | client's CPU seconds | peak MB |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {seconds[name]:.2f} |"
            f" {'' if name == KILO_QUARTER else f'{seconds[PG_DUMP] / seconds[name]:.0%}'} |"
            f" {processor[name]:.2f} | {peak[name]:.0f} |"
            for name in costs
        ),
        "",
        f"Memory of four times the rows: {ratios['memory_of_four_times_the_rows']:.2f} times.",
        "",
    ]
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    save("backup", {"ratios": rounded, "seconds": seconds, "peak_megabytes": peak}, "\n".join(lines))


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


def stores(gcs: str) -> dict[str, object]:
    """Make both stores and the key; the stage's outputs that name them."""
    s3 = boto3.client("s3")
    s3.create_bucket(
        Bucket="backups",
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    s3.put_object_lock_configuration(
        Bucket="backups",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 7}},
        },
    )
    urllib3.request("POST", f"{gcs}/storage/v1/b?project=bench", json={"name": "backups"})
    kms = boto3.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    return stage_outputs("backups", key, make_signing_key(kms)).model_dump(mode="json")


if __name__ == "__main__":
    main()
