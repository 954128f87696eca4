"""New passwords for the database's roles: nobody who works is cut off, and what is over is worth nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool
from typer.testing import CliRunner

from kilo.cdc.publication import apply_capture
from kilo.cdc.watch import SlotLook, read_slot
from kilo.database import ROLES, migrate
from kilo.database.cli import app
from kilo.database.logins import known_logins
from kilo.errors import BadInput
from kilo.logins import Generation, login_of, password_variable
from kilo.outbox import Event, enqueue_async
from kilo.testing.servers.postgres import PostgresServer
from kilo.testing.servers.wheels import postgres_programs
from tests.events import make_outputs
from tests.patience import PATIENCE_SECONDS, eventually
from tests.runtime.database.test_privileges import PERMITTED, TABLES, columns_of, permits, verbs

FIRST, BOTH, SECOND = Generation(), Generation(2, former_accepted=True), Generation(2)
NUMBERS = itertools.count(1)


def passwords(*generations: int) -> dict[str, str]:
    return {login_of(role, each): f"{role}-{each}-password" for role in ROLES for each in generations}


def rotate(url: str, generation: Generation) -> tuple[str, ...]:
    return migrate(url, passwords(*generation.accepted), generation=generation).logins_ended


def as_login(url: str, role: str, generation: int) -> str:
    login = login_of(role, generation)
    return make_conninfo(url, user=login, password=passwords(generation)[login])


def is_let_in(url: str, role: str, generation: int) -> bool:
    try:
        psycopg.connect(as_login(url, role, generation)).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            return False
        raise
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of its own, since roles belong to all databases of one."""
    made = PostgresServer(tmp_path_factory.mktemp("logins"), settings={"fsync": "off"})
    made.start()
    yield made
    made.stop()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    name = f"logins_{next(NUMBERS)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    made = server.url_of(name)
    rotate(made, FIRST)
    yield made
    # The first ones again, for the next test.
    rotate(made, FIRST)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def rotated(url: str) -> str:
    rotate(url, BOTH)
    rotate(url, SECOND)
    return url


async def test_writers_through_a_rotation_lose_nothing(url: str) -> None:
    """Pods that come and go as a rollout has it, each with a pool of what its Secret held when it began."""
    stored = 0
    pools: list[AsyncConnectionPool[Any]] = []

    async def pod(generation: int) -> AsyncConnectionPool[Any]:
        # Connections of a short life, so that those who have not been replaced yet log in all the time.
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            as_login(url, "kilo_ingest", generation), min_size=1, max_size=4, max_lifetime=0.2, open=False
        )
        await pool.open(wait=True)
        return pool

    async def write(stopping: asyncio.Event) -> None:
        nonlocal stored
        while not stopping.is_set():
            pool, key = pools[stored % len(pools)], str(stored)
            stored += 1
            async with pool.connection() as connection:
                await enqueue_async(connection, Event("acme", "order", key, "order.paid", {"n": 1}, key))

    async def some_more() -> None:
        wanted = stored + 100
        await eventually(lambda: stored >= wanted or any(each.done() for each in writers), "they write")
        assert not [each for each in writers if each.done() and each.exception()]

    pools += [await pod(1), await pod(1)]
    stopping = asyncio.Event()
    writers = [asyncio.create_task(write(stopping)) for _ in range(6)]
    await some_more()
    await asyncio.to_thread(rotate, url, BOTH)
    await some_more()
    for _ in range(2):
        former, pools[0] = pools[0], await pod(2)
        await some_more()
        await asyncio.sleep(0.3)
        await former.close()
        pools.reverse()
    assert set(await asyncio.to_thread(rotate, url, SECOND)) >= {"kilo_ingest"}
    await some_more()
    stopping.set()
    await asyncio.gather(*writers)
    for pool in pools:
        await pool.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (stored,)


def test_both_get_in_meanwhile_and_afterwards_the_former_does_not(url: str) -> None:
    assert rotate(url, BOTH) == ()
    assert all(is_let_in(url, "kilo_worker", each) for each in (1, 2))
    with psycopg.connect(as_login(url, "kilo_worker", 1), autocommit=True) as kept:
        assert kept.execute("SELECT current_user").fetchone() == ("kilo_worker",)
        assert sorted(rotate(url, SECOND)) == sorted(ROLES)
        # Who has it still is not left in either.
        with pytest.raises(psycopg.OperationalError):
            kept.execute("SELECT 1")
    assert not is_let_in(url, "kilo_worker", 1)
    assert is_let_in(url, "kilo_worker", 2)
    assert rotate(url, SECOND) == ()


def test_no_login_of_a_former_generation_stays(rotated: str) -> None:
    rotate(rotated, Generation(3, former_accepted=True))
    assert not is_let_in(rotated, "kilo_worker", 1)
    assert sorted(rotate(rotated, Generation(3))) == sorted(login_of(role, 2) for role in ROLES)
    with psycopg.connect(rotated) as connection:
        for role in ROLES:
            assert known_logins(connection, role) == {role: False, f"{role}_3": True}


def test_a_leaked_password_is_over_at_once(url: str) -> None:
    rotate(url, Generation(2))
    assert not is_let_in(url, "kilo_consumer", 1)
    assert is_let_in(url, "kilo_consumer", 2)


def test_what_processes_have_is_not_ended_by_a_step_of_two(url: str) -> None:
    with pytest.raises(BadInput, match="generation: 3, but processes have 1; it goes up by one"):
        rotate(url, Generation(3, former_accepted=True))
    assert is_let_in(url, "kilo_ingest", 1)
    with psycopg.connect(url) as connection:
        assert known_logins(connection, "kilo_ingest") == {"kilo_ingest": True}


def test_a_migration_that_names_no_generation_changes_no_login(rotated: str) -> None:
    report = migrate(rotated, {"kilo_worker": "another"})
    assert report.logins_ended == ()
    assert is_let_in(rotated, "kilo_worker", 2)
    assert not is_let_in(rotated, "kilo_worker", 1)


def test_a_new_database_begins_with_any_generation(server: PostgresServer, tmp_path: Path) -> None:
    del server
    other = PostgresServer(tmp_path / "restored", settings={"fsync": "off"})
    other.start()
    try:
        assert rotate(other.url, Generation(7, former_accepted=True)) == ()
        assert [is_let_in(other.url, "kilo_worker", each) for each in (1, 6, 7)] == [False, True, True]
    finally:
        other.stop()


@pytest.mark.parametrize("role", ROLES)
def test_a_login_may_do_what_its_role_may_and_no_more(rotated: str, role: str) -> None:
    with psycopg.connect(rotated) as connection:
        columns = {table: columns_of(connection, table) for table in TABLES}
    with psycopg.connect(as_login(rotated, role, 2), autocommit=True) as connection:
        assert connection.execute("SELECT current_user, session_user").fetchone() == (role, f"{role}_2")
        assert connection.execute("SHOW search_path").fetchone() == ("public, pg_temp",)
        found = {table: verbs(connection, table, columns[table]) for table in TABLES}
        wanted = {table: " ".join(sorted(each.split())) for table, each in PERMITTED.get(role, {}).items()}
        assert {table: each for table, each in found.items() if each} == wanted
        for other in set(ROLES) - {role}:
            assert not permits(connection, f"SET ROLE {other}")
        # What a pool or a pooler says between two of its clients leaves it its role.
        connection.execute("DISCARD ALL")
        connection.execute("RESET ROLE")
        assert connection.execute("SELECT current_user").fetchone() == (role,)
        # Without its role it may do nothing at all, so that no trigger on a role's name is evaded.
        connection.execute("SET ROLE NONE")
        assert not any(verbs(connection, table, columns[table]) for table in TABLES)


def test_the_destroyers_guard_holds_for_its_login(rotated: str) -> None:
    with psycopg.connect(rotated, autocommit=True) as connection:
        connection.execute("INSERT INTO fle_tenants (tenant) VALUES ('acme')")
        connection.execute(
            "INSERT INTO fle_keys (id, tenant, purpose, version, state, format, message_limit, digest)"
            " VALUES (1, 'acme', 'field-data', 1, 'active', 2, 1000, sha256('secret'))"
        )
    with (
        psycopg.connect(as_login(rotated, "kilo_destroyer", 2)) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="kilo_destroyer may only destroy retired keys"),
    ):
        connection.execute("UPDATE fle_keys SET state = 'destroyed'")


@pytest.mark.timeout(3 * PATIENCE_SECONDS)
async def test_change_capture_replicates_and_its_watch_sees_it_by_a_later_login(
    rotated: str, tmp_path: Path
) -> None:
    outputs = make_outputs()
    with psycopg.connect(rotated, autocommit=True) as connection:
        apply_capture(connection, outputs.outbox)
    slot, login = outputs.outbox.replication_slot, as_login(rotated, "kilo_cdc", 2)
    options = ["-o", "proto_version=1", "-o", f"publication_names={outputs.outbox.publication}"]
    where = ["--dbname", login, "--slot", slot, "--start", "--file", str(tmp_path / "changes")]
    reading = await asyncio.create_subprocess_exec(postgres_programs() / "pg_recvlogical", *where, *options)
    try:
        with psycopg.connect(rotated, autocommit=True) as connection:
            active = "SELECT count(*) FROM pg_replication_slots WHERE active"
            await eventually(
                lambda: connection.execute(active.encode()).fetchone() == (1,), "it does not read the slot"
            )
            settings = "SELECT rolconfig FROM pg_roles WHERE rolname = 'kilo_cdc_2'"
            (found,) = connection.execute(settings.encode()).fetchone() or ([],)
            assert "wal_sender_timeout=20s" in found
            # Another's rows, which are decoded and not sent.
            connection.execute("CREATE TABLE others (n int)")
            connection.execute("INSERT INTO others SELECT generate_series(1, 1000000)")
        looks: list[SlotLook] = []
        while not any(look.decoding for look in looks):
            look, _ = await read_slot(login, slot, 30)
            assert look
            looks.append(look)
            assert look.confirmed < look.written or len(looks) < 3, "it was never seen to decode"
    finally:
        reading.terminate()
        await reading.wait()


def test_an_administrator_of_a_managed_server_rotates_too(tmp_path: Path) -> None:
    """Without being superuser, as on Cloud SQL."""
    server = PostgresServer(tmp_path / "managed", settings={"fsync": "off"})
    server.start()
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE customer LOGIN CREATEROLE CREATEDB REPLICATION PASSWORD 'c'")
            connection.execute("GRANT pg_monitor, pg_read_all_data TO customer WITH ADMIN OPTION")
            connection.execute("CREATE DATABASE managed OWNER customer")
        url = make_conninfo(server.url_of("managed"), user="customer", password="c")
        rotate(url, FIRST)
        kept = psycopg.connect(as_login(url, "kilo_ingest", 1), autocommit=True)
        rotate(url, BOTH)
        kept.execute("SELECT 1")
        assert sorted(rotate(url, SECOND)) == sorted(ROLES)
        with pytest.raises(psycopg.OperationalError):
            kept.execute("SELECT 1")
        rotate(url, Generation(3))
        with psycopg.connect(url) as connection:
            assert known_logins(connection, "kilo_cdc") == {"kilo_cdc": False, "kilo_cdc_3": True}
            members = connection.execute(
                "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member"
                " WHERE r.rolname = 'customer' AND m.inherit_option AND roleid::regrole::text ~ '^kilo_'"
            )
            # It does not keep the rights that it had to end sessions.
            assert members.fetchone() == (0,)
        with psycopg.connect(as_login(url, "kilo_cdc", 3)) as connection:
            able = "SELECT rolreplication FROM pg_roles WHERE rolname = session_user"
            assert connection.execute(able.encode()).fetchone() == (True,)
    finally:
        server.stop()


def test_the_command_takes_passwords_of_both_and_says_which_logins_are_over(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs.json"
    outputs.write_text(make_outputs().model_dump_json(), encoding="utf-8")
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("KILO_OUTPUTS", str(outputs))
    for login, password in passwords(1, 2).items():
        monkeypatch.setenv(password_variable(login), password)
    steps = (["--generation", "2", "--former-accepted"], ["--generation", "2"])
    done = [CliRunner().invoke(app, ["migrate", "--json", *step]) for step in steps]
    assert [each.exit_code for each in done] == [0, 0]
    printed = [json.loads(each.stdout) for each in done]
    assert printed[0]["logins_ended"] == []
    assert sorted(printed[1]["logins_ended"]) == sorted(ROLES)
    assert set(printed[0]["roles_given_a_password"]) == set(passwords(1, 2))
    assert is_let_in(url, "kilo_usage", 2)
