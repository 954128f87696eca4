"""A drill has the locale of the source, or says that it has not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from kilo.backup.catalogue import unwrap_data_key
from kilo.backup.drill import drill
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import Locale
from kilo.backup.restore import restore
from kilo.backup.scratch import scratch_database
from kilo.backup.signatures import Verifier
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.testing.servers.postgres import PostgresServer
from tests.runtime.backup.test_backup import back_up
from tests.runtime.backup.test_values import execute


@pytest.fixture
def utf8_url(postgres: PostgresServer) -> Iterator[str]:
    """A database in which lower() knows letters beyond ASCII, as the tests' others do not."""
    execute(
        postgres.url,
        [
            "CREATE DATABASE letters TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
        ],
    )
    yield postgres.url_of("letters")
    execute(postgres.url, ["DROP DATABASE letters WITH (FORCE)"])


def test_generated_columns_are_proven_in_the_locale_of_the_source(
    outputs: StackOutputs, stores: dict[str, Store], key: BackupKey, utf8_url: str, target_url: str
) -> None:
    execute(
        utf8_url,
        [
            "CREATE TABLE person (name text, small text GENERATED ALWAYS AS (lower(name)) STORED)",
            "INSERT INTO person (name) VALUES ('ÉMILE'), ('Åsa')",
        ],
    )
    manifest = back_up(outputs, stores, utf8_url).manifest
    wanted = Locale(
        encoding="UTF8", provider="builtin", collate="C", ctype="C", locale="C.UTF-8", version="1"
    )
    assert manifest.locale == wanted
    [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
    assert (evidence.error, evidence.notes) == (None, ())
    # Which it is not elsewhere.
    with pytest.raises(CheckFailed, match=r"public\.person has other contents"):
        restore(stores["primary"], manifest, unwrap_data_key(key, manifest), target_url)


def test_a_source_without_an_encoding_is_backed_up_and_proven(
    outputs: StackOutputs,
    stores: dict[str, Store],
    key: BackupKey,
    postgres: PostgresServer,
) -> None:
    """SQL_ASCII takes any bytes for text: here one word in two encodings."""
    execute(postgres.url, ["CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"])
    url = postgres.url_of("bytes")
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE words (id int PRIMARY KEY, word text)")
            connection.execute("INSERT INTO words VALUES (1, E'gr\\303\\274n'), (2, E'gr\\374n')")
            connection.execute("COMMENT ON TABLE words IS E'gr\\374n'")
        manifest = back_up(outputs, stores, url).manifest
        assert manifest.locale
        assert manifest.locale.encoding == "SQL_ASCII"
        [evidence] = drill({"primary": stores["primary"]}, Verifier(outputs.backups), key)
        assert (evidence.error, evidence.notes, evidence.rows) == (None, (), 2)
    finally:
        execute(postgres.url, ["DROP DATABASE bytes WITH (FORCE)"])


@pytest.mark.usefixtures("cloud")
def test_a_locale_of_icu_is_replaced_and_named_where_the_server_has_no_icu() -> None:
    wanted = Locale(
        encoding="UTF8", provider="icu", collate="C", ctype="C", locale="de-DE", version="153.120"
    )
    with scratch_database("shop", "postgres", wanted) as scratch, psycopg.connect(scratch.url) as connection:
        assert connection.execute("SELECT lower('É')").fetchone() == ("é",)
    assert scratch.note
    assert "icu de-DE 153.120" in scratch.note
    assert "ICU is not supported in this build" in scratch.note
    assert "builtin C.UTF-8" in scratch.note


@pytest.mark.usefixtures("cloud")
def test_a_locale_that_the_server_lacks_is_replaced_and_named() -> None:
    wanted = Locale(encoding="UTF8", provider="libc", collate="xx_XX.UTF-8", ctype="xx_XX.UTF-8")
    with scratch_database("shop", "postgres", wanted) as scratch, psycopg.connect(scratch.url) as connection:
        assert connection.execute("SELECT lower('É')").fetchone() == ("é",)
    assert scratch.note
    assert "libc xx_XX.UTF-8" in scratch.note
    assert "builtin C.UTF-8" in scratch.note
