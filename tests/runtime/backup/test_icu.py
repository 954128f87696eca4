"""A source whose text sorts by ICU, as managed databases' may: Debian's PostgreSQL has it, the wheel not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.locales import read_locale
from kilo.backup.scratch import scratch_database
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.testing.servers import postgres as postgres_module
from kilo.testing.servers.postgres import PostgresServer
from tests.runtime.backup.test_backup import back_up
from tests.runtime.backup.test_values import execute

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=Path("none/postgres")).parent
pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "initdb").exists(), reason="needs a PostgreSQL with ICU: apt install postgresql"
)
LETTERS = [
    "CREATE TABLE person (name text, small text GENERATED ALWAYS AS (lower(name)) STORED)",
    "INSERT INTO person (name) VALUES ('ÉMILE'), ('Ärger'), ('zebra')",
]
SORTED = [
    "CREATE TABLE word (name text) PARTITION BY RANGE (name)",
    # Ä comes after z but by the language's own order.
    "CREATE TABLE word_a PARTITION OF word FOR VALUES FROM ('a') TO ('b')",
    "INSERT INTO word VALUES ('apfel'), ('ärger')",
]


@pytest.fixture
def icu_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of the provider ICU on Debian's server."""
    with monkeypatch.context() as patched:
        patched.setattr(postgres_module, "postgres_programs", lambda: PROGRAMS)
        server = PostgresServer(tmp_path / "debian")
    server.start()
    try:
        execute(
            server.url,
            [
                "CREATE DATABASE words TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
                " LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"
            ],
        )
        yield server.url_of("words")
    finally:
        server.stop()


def test_a_scratch_server_with_icu_has_the_sources_own_order(
    icu_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    with psycopg.connect(icu_url) as connection:
        locale = read_locale(connection)
    assert (locale.provider, locale.locale, locale.collate) == ("icu", "de-DE", "C")
    assert locale.version
    with scratch_database("words", "postgres", locale) as scratch:
        assert scratch.note is None
        execute(scratch.url, SORTED)
        with psycopg.connect(scratch.url) as connection:
            assert read_locale(connection) == locale


def test_letters_are_proven_and_the_lack_is_named_where_it_has_none(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, icu_url: str
) -> None:
    execute(icu_url, LETTERS)
    back_up(outputs, stores, icu_url)
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert (evidence.error, evidence.rows) == (None, 3)
    [note] = evidence.notes
    assert "the source's locale is icu de-DE" in note
    assert "ICU is not supported in this build" in note
    assert "drilled in builtin C.UTF-8" in note


def test_what_depends_on_the_order_fails_and_says_why(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, icu_url: str
) -> None:
    execute(icu_url, SORTED)
    back_up(outputs, stores, icu_url)
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert evidence.error
    assert "partition" in evidence.error
    assert "ärger" not in evidence.error
    assert "the source's locale is icu de-DE" in evidence.error
