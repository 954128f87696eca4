"""A service's test suite on the fixtures, as its authors write it, run by a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = 'pytest_plugins = ["kilo.testing"]\n'
SUITE = """
import asyncio
import psycopg, pytest
from kilo.bus.connect import connect
from kilo.fle import FieldCipher
from kilo.fle.errors import FieldError
from kilo.outbox import Event, enqueue

def test_events_are_written_with_the_change(kilo_database_url):
    with psycopg.connect(kilo_database_url) as connection:
        enqueue(connection, Event("acme", "order", "1", "order.placed", {"total": 12}))
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)

def test_each_test_has_a_database_of_its_own(kilo_database_url):
    with psycopg.connect(kilo_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

def test_fields_are_encrypted_under_the_tenants_own_key(kilo_outputs, kilo_database_url, kilo_kms):
    cipher = FieldCipher.from_outputs(kilo_outputs, kilo_database_url, table="orders", kms=kilo_kms)
    stored = cipher.encrypt("acme", "email", "1", "ana@example.com")
    assert "ana" not in stored
    assert cipher.decrypt("acme", "email", "1", stored) == "ana@example.com"
    fresh = FieldCipher.from_outputs(kilo_outputs, kilo_database_url, table="orders", kms=kilo_kms)
    assert fresh.decrypt("acme", "email", "1", stored) == "ana@example.com"
    kilo_kms.of("aws").destroy(kilo_outputs.tenants["acme"].encryption_key.key)
    lost = FieldCipher.from_outputs(
        kilo_outputs, kilo_database_url, table="orders", kms=kilo_kms, principal="another"
    )
    with pytest.raises(FieldError):
        lost.decrypt("acme", "email", "1", stored)

def test_the_stream_is_there(kilo_outputs):
    async def look():
        bus = await connect(kilo_outputs.bus.url)
        try:
            return await bus.client.jetstream().stream_info(kilo_outputs.bus.stream)
        finally:
            await bus.close()
    assert asyncio.run(look()).config.name == kilo_outputs.bus.stream
"""


def test_a_suite_runs_on_real_servers_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_service.py").write_text(SUITE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "4 passed" in run.stdout, run.stdout + run.stderr
