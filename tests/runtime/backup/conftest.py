"""Both stores on real servers: S3 and KMS on moto with object lock, Cloud Storage on fake-gcs-server."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import urllib3
from psycopg import sql

from kilo.backup.keys import BackupKey
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store, open_stores
from kilo.contract import StackOutputs
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from sandbox.toolchain import path
from tests.runtime.registry.proxy import Proxy

RUN = [
    sys.executable,
    "-c",
    "from kilo.cli import main; raise SystemExit(main())",
    "backup",
    "run",
    "--json",
]
"""``kilo backup run`` as a process of its own."""
_numbers = itertools.count(1)
REGION = "eu-central-1"


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcsServer]:
    server = FakeGcsServer(tmp_path_factory.mktemp("gcs"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cloud(moto: MotoServer, gcs: FakeGcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that a pod of the sandbox has."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto.url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": REGION,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "PATH": f"{path('postgres')}:/usr/bin:/bin",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_proxy(cloud: None, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    del cloud
    proxy = Proxy(moto.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def gcs_proxy(cloud: None, gcs: FakeGcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    del cloud
    proxy = Proxy(gcs.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def outputs(cloud: None, gcs: FakeGcsServer) -> StackOutputs:
    """Outputs of a stage with fresh, locked buckets and a fresh key."""
    del cloud
    number = next(_numbers)
    s3 = boto3.client("s3")
    bucket = f"backups-{number}"
    s3.create_bucket(
        Bucket=bucket,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    retention = {"Mode": "COMPLIANCE", "Days": 7}
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )
    urllib3.request("POST", f"{gcs.url}/storage/v1/b?project=tests", json={"name": bucket})
    kms = boto3.client("kms")
    return stage_outputs(bucket, kms.create_key()["KeyMetadata"]["Arn"], make_signing_key(kms))


def make_signing_key(kms: Any) -> str:
    """A key as the vault's: its ARN."""
    made = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY", MultiRegion=True)
    return made["KeyMetadata"]["Arn"]


def stage_outputs(bucket: str, key: str, signing_key: str) -> StackOutputs:
    def store(provider: str, mode: str) -> dict[str, Any]:
        return {
            "provider": provider,
            "bucket": bucket,
            "location": REGION,
            "lock_mode": mode,
            "retention_days": 7,
        }

    side = {"provider": "aws", "url": "registry.example.com", "location": REGION}
    return StackOutputs.model_validate(
        {
            "stage": "test",
            "namespace": "kilo-test",
            "tenants": {},
            "database": {"host": "postgres", "port": 5432, "name": "kilo", "role_secrets": {}},
            "bus": {
                "url": "nats://bus",
                "stream": "EVENTS",
                "subject_prefix": "events",
                "heartbeat_stream": "HEARTBEATS",
                "duplicate_window_seconds": 120,
            },
            "outbox": {
                "table": "outbox",
                "publication": "outbox",
                "replication_slot": "outbox",
                "payload_limit_bytes": 1,
                "fingerprint_window_days": 1,
            },
            "gateway": {"url": "http://gateway", "tenant_header": "x-tenant-id"},
            "registries": {
                "primary": side,
                "secondary": side,
                "repositories": [],
                "push_queue_url": "http://queue",
            },
            "backups": {
                "primary": store("aws", "compliance"),
                "secondary": store("gcp", "unlocked"),
                "encryption_key": {"provider": "aws", "key": key, "alias": "alias/backup"},
                "signing_key": {"provider": "aws", "key": signing_key, "alias": "alias/backup-signing"},
            },
            "audit": store("aws", "compliance"),
            "monitoring": {"prometheus_url": "http://prometheus"},
        }
    )


@pytest.fixture
def stores(outputs: StackOutputs) -> dict[str, Store]:
    return open_stores(outputs.backups)


@pytest.fixture
def key(outputs: StackOutputs) -> BackupKey:
    return BackupKey(outputs.backups)


@pytest.fixture
def verifier(outputs: StackOutputs) -> Verifier:
    return Verifier(outputs.backups)


@pytest.fixture
def filled_url(empty_database_url: str) -> str:
    """A database with a bit of everything."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute(
            'CREATE TABLE shop."Orders" (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(),'
            " total numeric(12,2),"
            " weight double precision, note text, picture bytea, tags text[], doc jsonb)"
        )
        connection.execute(
            'INSERT INTO shop."Orders" (total, weight, note, picture, tags, doc) SELECT i * 1.01, i / 3.0,'
            " 'grüße ' || i, sha256(i::text::bytea), ARRAY['a', i::text], jsonb_build_object('i', i)"
            " FROM generate_series(1, 20000) i"
        )
        connection.execute("CREATE TABLE days (day date, n int) PARTITION BY RANGE (day)")
        connection.execute(
            "CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
        )
        connection.execute("INSERT INTO days SELECT date '2026-01-01' + i, i FROM generate_series(0, 99) i")
        connection.execute("CREATE TABLE nothing (x int)")
        # A type that PostgreSQL can't hash.
        connection.execute("CREATE TABLE notes (note json, place point)")
        connection.execute("INSERT INTO notes VALUES ('{\"a\":  1}', '(1,2)'), (NULL, NULL)")
        connection.execute("SELECT lo_from_bytea(0, 'a large object')")
        connection.execute("SELECT lo_from_bytea(0, 'another')")
    return empty_database_url


@pytest.fixture
def outputs_file(outputs: StackOutputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outputs where ``kilo`` looks for them."""
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(outputs.model_dump(mode="json")))
    monkeypatch.setenv("KILO_OUTPUTS", str(file))
    return file


@pytest.fixture
def target_url(postgres: PostgresServer) -> Iterator[str]:
    """Another empty database, to restore into."""
    name = f"restored_{next(_numbers)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres.url_of(name)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
