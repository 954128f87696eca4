"""A backup to both stores against pg_dump to /dev/null, on the same database in the same run.

The stores are moto and fake-gcs-server on the same machine, which take processor time of their own
that a cloud's would not; what they and the dump itself cost is in the table beside ours.

    make bench NAME=backup ARGS="--rows 2000000"
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import boto3
import psycopg
import urllib3

from benchmarks.harness import Cost, measure, show
from runtime.backup.database import environment_of
from sandbox import toolchain
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from sandbox.servers.postgres import PostgresServer
from tests.runtime.backup.conftest import REGION, stage_outputs

KILO = [
    sys.executable,
    "-c",
    "from runtime.cli import main; raise SystemExit(main())",
    "backup",
    "run",
    "--json",
]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500_000)
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
            compare(postgres.url, moto.url, gcs.url, directory, rows=arguments.rows, rounds=arguments.rounds)
        finally:
            for server in servers:
                server.stop()


def compare(url: str, aws: str, gcs: str, directory: Path, *, rows: int, rounds: int) -> None:
    """Measure both, in turn, and show the best of each."""
    os.environ |= {
        "AWS_ENDPOINT_URL": aws,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": REGION,
        "STORAGE_EMULATOR_HOST": gcs,
        "PATH": f"{toolchain.path('postgres')}:{os.environ['PATH']}",
        "DATABASE_URL": url,
        "KILO_OUTPUTS": str(directory / "outputs.json"),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE events (id bigserial PRIMARY KEY, payload jsonb, at timestamptz)")
        connection.execute(
            "INSERT INTO events (payload, at) SELECT jsonb_build_object('id', i, 'text',"
            " md5(i::text) || md5((-i)::text)), now() FROM generate_series(1, %s) i",
            [rows],
        )
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    s3 = boto3.client("s3")
    s3.create_bucket(
        Bucket="backups",
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    urllib3.request("POST", f"{gcs}/storage/v1/b?project=bench", json={"name": "backups"})
    key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = stage_outputs("backups", key).model_dump(mode="json")
    (directory / "outputs.json").write_text(json.dumps(outputs))
    dump = ["sh", "-c", "exec pg_dump --format=custom --large-objects > /dev/null"]
    best: dict[str, Cost] = {}
    for _ in range(rounds):
        for name, argv in (("pg_dump to /dev/null", dump), ("kilo backup run, both stores", KILO)):
            cost = measure(argv, environment_of(url))
            if name not in best or cost.seconds < best[name].seconds:
                best[name] = cost
    reference = best["pg_dump to /dev/null"].seconds
    rows_shown = [
        [
            name,
            f"{c.seconds:.2f}",
            f"{reference / c.seconds:.0%}",
            f"{c.processor_seconds:.2f}",
            f"{c.peak_megabytes:.0f}",
        ]
        for name, c in best.items()
    ]
    megabytes = (size[0] if size else 0) / 1e6
    columns = ("what", "seconds", "of pg_dump's speed", "CPU s", "peak MB")
    show(f"Backup of {rows} rows, {megabytes:.0f} MB, best of {rounds}", columns, rows_shown)


if __name__ == "__main__":
    main()
