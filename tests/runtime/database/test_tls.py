"""A URL that says ``sslmode=verify-full`` is kept to: a server that can't show who it is gets no password."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from kilo.database.session import connect
from kilo.testing.servers.postgres import PostgresServer
from tests.runtime.database.secured import Secured
from tests.runtime.traffic.certificates import Authority


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("tls") / "postgres")
    yield made
    made.server.stop()


async def encrypted(url: str) -> bool:
    """Whether a session at ``url`` is, as the server has it."""
    async with await connect(url, "test") as connection:
        found = await connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        row = await found.fetchone()
        return bool(row and row[0])


async def until_refused(url: str) -> None:
    """Connect again and again: the server takes a new certificate up a moment after it was told to."""
    for _ in range(600):
        await encrypted(url)


async def test_a_server_that_shows_who_it_is_is_used_in_tls(secured: Secured) -> None:
    assert await encrypted(secured.url())


@pytest.mark.parametrize("fault", ["another authority", "expired", "another name"])
async def test_a_wrong_certificate_is_refused(secured: Secured, fault: str) -> None:
    host, said = "localhost", "SSL error: (certificate verify failed|provider signature failure)"
    if fault == "another authority":
        secured.certify(Authority())
    elif fault == "expired":
        secured.certify(secured.authority, timedelta(minutes=-1))
    else:
        host, said = "127.0.0.1", 'does not match host name "127.0.0.1"'
    try:
        secured.reload()
        with pytest.raises(psycopg.OperationalError, match=said) as caught:
            await until_refused(secured.url(host))
        password = secured.server.url.split(":")[2].partition("@")[0]
        assert password not in str(caught.value)
    finally:
        secured.certify(secured.authority)
        secured.reload()


async def test_a_server_without_tls_is_refused(secured: Secured, tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "plain")
    server.start()
    try:
        url = server.url.replace(f"@{server.address}:", "@localhost:")
        with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
            await connect(f"{url}?sslmode=verify-full&sslrootcert={secured.ca_file}", "test")
    finally:
        server.stop()
