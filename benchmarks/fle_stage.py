"""A stage for the field encryption benchmarks: PostgreSQL and a KMS, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import httpx

from kilo.contract import KeyReference
from kilo.database import migrate
from kilo.fle import CacheLimits, FieldCipher
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import KeyTable
from kilo.fle.kms import KmsClients
from kilo.testing.servers.postgres import PostgresServer

REQUESTS = "requests.log"
SCOPE = {"acme": ("email", "phone"), "legacy": ("email",)}


@contextmanager
def stage() -> Generator[tuple[str, dict[str, KeyReference]]]:
    """The database's URL and each tenant's KMS key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ.update(
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="benchmark",
        AWS_SECRET_ACCESS_KEY="benchmark",
        AWS_DEFAULT_REGION="eu-central-1",
    )
    with TemporaryDirectory() as folder, Path(folder, REQUESTS).open("wb") as log:
        # Its log has a line a request, which is how calls of every candidate are counted alike.
        os.environ["KILO_BENCHMARK_REQUESTS"] = log.name
        moto = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=log
        )
        postgres = PostgresServer(Path(folder))
        try:
            postgres.start()
            _wait(url)
            kms = boto3.client("kms")
            keys = {
                tenant: KeyReference(provider="aws", key=kms.create_key()["KeyMetadata"]["Arn"], alias=tenant)
                for tenant in SCOPE
            }
            database = postgres.url_of("postgres")
            migrate(database)
            yield database, keys
        finally:
            postgres.stop()
            moto.terminate()
            moto.wait()


def cipher(database: str, keys: dict[str, KeyReference], table: str = "customers") -> FieldCipher:
    """A cipher over the stage's two tenants."""
    references = {tenant: (key,) for tenant, key in keys.items()}
    return FieldCipher(
        Keyring(KeyTable(database), KmsClients(), references, limits=CacheLimits()), SCOPE, table
    )


def kms_calls() -> int:
    """Calls that the KMS has answered since it started."""
    return Path(os.environ["KILO_BENCHMARK_REQUESTS"]).read_bytes().count(b'"POST / ')


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            httpx.get(f"{url}/moto-api/data.json", timeout=1)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    msg = "the KMS did not start"
    raise RuntimeError(msg)
