"""Ingest is ready once its first request needs nothing that is still to be fetched."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from kilo.testing.servers.nats import NatsServer
from kilo.testing.servers.postgres import PostgresServer
from sandbox.servers.moto import MotoServer
from tests.events import Platform, make_platform


@pytest.fixture
def platform(tmp_path: Path, postgres: PostgresServer, nats: NatsServer) -> Iterator[Platform]:
    database = f"warming_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    moto = MotoServer(tmp_path / "aws")
    moto.start()
    try:
        with make_platform(tmp_path, postgres, nats, moto, database) as made:
            yield made
    finally:
        moto.stop()


def kms_calls(platform: Platform) -> dict[str, float]:
    text = httpx.get(f"{platform.ingest_url}/metrics").text
    found = re.findall(r'^fle_kms_calls_total\{operation="unwrap",tenant="(\w+)"\} (\S+)$', text, re.M)
    return {tenant: float(count) for tenant, count in found}


def send(platform: Platform, tenant: str) -> int:
    event = {
        "aggregate": "order",
        "aggregate_id": "1",
        "kind": "order.created",
        "payload": {"email": "a@b.c"},
    }
    headers = {"X-Tenant-Id": tenant, "Idempotency-Key": f"{tenant}-{secrets.token_hex(4)}"}
    return httpx.post(f"{platform.ingest_url}/v1/events", json=event, headers=headers, timeout=30).status_code


def test_the_first_request_asks_nobody_for_a_key(platform: Platform) -> None:
    platform.start_ingest()
    before = kms_calls(platform)
    assert before == {"acme": 1.0, "globex": 1.0}
    assert {send(platform, tenant) for tenant in ("acme", "globex", "initech")} == {201}
    assert kms_calls(platform) == before


def test_a_key_that_cannot_be_had_keeps_nobody_else_waiting(platform: Platform) -> None:
    file = platform.directory / "outputs.json"
    outputs = json.loads(file.read_bytes())
    key = outputs["tenants"]["acme"]["encryption_key"]
    key["key"] = f"{key['key'].rpartition('/')[0]}/00000000-0000-4000-8000-000000000000"
    file.write_text(json.dumps(outputs))
    platform.start_ingest()
    assert send(platform, "globex") == 201
    assert send(platform, "acme") >= 500
