"""A stage for field encryption: a real PostgreSQL, and KMS and S3 by their real protocols on moto."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.kms.models import kms_backends
from moto.server import ThreadedMotoServer

from kilo.contract import StackOutputs
from kilo.fle import CacheLimits, FieldCipher
from sandbox.servers.moto_gaps import fill_kms

REGION = "eu-central-1"
ENCRYPTED = {"gold": ["email", "phone"], "second": ["email", "phone"], "legacy": ["email"]}
PEOPLE = {
    name: Ed25519PrivateKey.generate() for name in ("requester", "approver.one", "approver.two", "stranger")
}
AUDIT_KEY = Ed25519PrivateKey.generate()


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    fill_kms()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    return moto_url


def make_outputs(keys: dict[str, str], bucket: str, **field_encryption: Any) -> StackOutputs:
    locked = {
        "provider": "aws",
        "bucket": bucket,
        "location": REGION,
        "lock_mode": "governance",
        "retention_days": 1,
    }
    key = {"provider": "aws", "alias": "alias/test"}
    registry = {"provider": "aws", "url": "registry.test/kilo", "location": REGION}
    return StackOutputs.model_validate(
        {
            "stage": "test",
            "namespace": "kilo",
            "tenants": {
                tenant: {
                    "tier": "gold" if tenant != "plain" else "bronze",
                    "encryption_key": {**key, "key": arn},
                    "encrypted_fields": ENCRYPTED.get(tenant, []),
                }
                for tenant, arn in keys.items()
            },
            "database": {"host": "localhost", "port": 5432, "name": "kilo", "role_secrets": {}},
            "bus": {
                "url": "nats://localhost",
                "stream": "EVENTS",
                "subject_prefix": "events",
                "heartbeat_stream": "HEARTBEAT",
                "duplicate_window_seconds": 120,
            },
            "outbox": {
                "table": "outbox",
                "publication": "outbox_pub",
                "replication_slot": "outbox",
                "payload_limit_bytes": 262144,
                "fingerprint_window_days": 7,
            },
            "gateway": {"url": "http://localhost", "tenant_header": "x-tenant-id"},
            "registries": {
                "primary": registry,
                "secondary": registry,
                "repositories": [],
                "push_queue_url": "",
            },
            "backups": {"primary": locked, "secondary": locked, "encryption_key": {**key, "key": "none"}},
            "audit": locked,
            "monitoring": {"prometheus_url": "http://localhost"},
            "field_encryption": {
                "rotation_enabled": True,
                "principals": [
                    {"name": name, "public_key": public(key)}
                    for name, key in PEOPLE.items()
                    if name != "stranger"
                ],
                "tables": [
                    {
                        "table": "customers",
                        "context": "customers",
                        "columns": {"email": "email", "phone": "details.phone"},
                    }
                ],
                "audit_public_key": public(AUDIT_KEY),
                **field_encryption,
            },
        }
    )


@dataclass
class Stage:
    """Everything that a test of field encryption talks to."""

    outputs: StackOutputs
    url: str
    kms: Any
    s3: Any
    _connection: psycopg.Connection | None = None

    def cipher(self, table: str = "customers", **settings: Any) -> FieldCipher:
        return FieldCipher.from_outputs(self.outputs, self.url, table=table, **settings)

    def destroy_kms_key(self, tenant: str) -> None:
        """As after the deletion window; moto lets disabled keys go on, but not destroyed ones."""
        key_id = self.outputs.tenants[tenant].encryption_key.key.rpartition("/")[2]
        del kms_backends[DEFAULT_ACCOUNT_ID][REGION].keys[key_id]

    def past_triggers(self, query: str, *parameters: object) -> None:
        """As the database's owner, whom no trigger stops."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(query.encode(), parameters or None)

    def sql(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Each query by itself, all over one connection: there are hundreds in some tests."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.url, autocommit=True)
        cursor = self._connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def url_of(stage: Stage, role: str) -> str:
    stage.sql(f"ALTER ROLE {role} PASSWORD 'p'")
    return f"postgresql://{role}:p@{stage.url.partition('@')[2]}"


@pytest.fixture
def stage(aws: str, database_url: str) -> Stage:
    kms, s3 = boto3.client("kms"), boto3.client("s3")
    keys = {tenant: kms.create_key()["KeyMetadata"]["Arn"] for tenant in (*ENCRYPTED, "plain")}
    bucket = "audit-" + database_url.rpartition("/")[2].replace("_", "-")
    s3.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": REGION},
        ObjectLockEnabledForBucket=True,
    )
    return Stage(make_outputs(keys, bucket), database_url, kms, s3)


@pytest.fixture(autouse=True)
def no_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests plan with the settle time that they need; that there is a least one has a test of its own."""
    monkeypatch.setattr("kilo.fle.rotation.plan.LEAST_SETTLE_SECONDS", 0)


@pytest.fixture
def short() -> CacheLimits:
    """Limits under which tests see keys age."""
    return CacheLimits(reserve_messages=1000)
