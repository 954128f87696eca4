"""The database roles, one a workload, and what their logins have besides a password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from kilo.database.logins import accept_login, check_step, known_logins
from kilo.logins import Generation

ROLES = (
    "kilo_ingest",
    "kilo_worker",
    "kilo_consumer",
    "kilo_cdc",
    "kilo_backup",
    "kilo_auditor",
    "kilo_destroyer",
    "kilo_keymaker",
    "kilo_rotator",
    "kilo_usage",
)
"""What a role may touch is granted in the migrations; kilo_cdc also replicates."""
_CAPTURE = "kilo_cdc"


def apply_roles(
    connection: psycopg.Connection[Any], passwords: Mapping[str, str], generation: Generation | None = None
) -> None:
    """Create the roles that are missing, accept the logins of ``generation`` and set the given passwords.

    Passwords, by login, are sent as SCRAM verifiers (RFC 5802), so that no server log can hold one in plain.
    Without a generation a new role logs in itself, and the logins that there are stay as they are.

    Raises:
        BadInput: the former generation is to be accepted, and is another than processes have.
    """
    if generation:
        check_step(connection, ROLES, generation)
    accepted = generation.accepted if generation else ()
    itself = sql.SQL("LOGIN" if generation is None or 1 in accepted else "NOLOGIN")
    for role in ROLES:
        _create(connection, role, itself)
        for login in [accept_login(connection, role, number) for number in accepted] or [role]:
            if passwords.get(login):
                _set_password(connection, login, passwords[login])
    for login in known_logins(connection, _CAPTURE):
        _allow_replication(connection, login)
        _end_lost_replication(connection, login)


def _create(connection: psycopg.Connection[Any], role: str, attribute: sql.SQL) -> None:
    known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if known is not None:
        return
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), attribute))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        # Roles belong to the whole server: another database's migration made it meanwhile.
        pass


def _set_password(connection: psycopg.Connection[Any], login: str, password: str) -> None:
    verifier = connection.pgconn.encrypt_password(
        password.encode(), login.encode(), b"scram-sha-256"
    ).decode()
    connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(login), sql.Literal(verifier))
    )


def _allow_replication(connection: psycopg.Connection[Any], login: str) -> None:
    # A member does not inherit it, and it is asked for both at the login and of the role that it takes on.
    able = connection.execute("SELECT rolreplication FROM pg_roles WHERE rolname = %s", (login,)).fetchone()
    if able and able[0]:
        return
    # Amazon RDS keeps the REPLICATION attribute to itself and grants a role instead.
    managed = connection.execute("SELECT FROM pg_roles WHERE rolname = 'rds_replication'").fetchone()
    statement = "ALTER ROLE {} REPLICATION" if managed is None else "GRANT rds_replication TO {}"
    connection.execute(sql.SQL(statement).format(sql.Identifier(login)))


def _end_lost_replication(connection: psycopg.Connection[Any], login: str) -> None:
    """Let go of a slot soon after its reader is lost without a word; by default it is held for a minute."""
    setting = "wal_sender_timeout=20s"
    known = connection.execute("SELECT rolconfig FROM pg_roles WHERE rolname = %s", (login,)).fetchone()
    if known and setting not in (known[0] or ()):
        statement = sql.SQL("ALTER ROLE {} SET wal_sender_timeout = '20s'")
        connection.execute(statement.format(sql.Identifier(login)))


def apply_search_path(connection: psycopg.Connection[Any], schema: str) -> None:
    """Have every role find ``schema`` and nothing else in this database, whatever its clients set.

    By the server, so that a connection needs no option for it and a pooler passes it on. The database's own
    setting stays the application's.
    """
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    path = sql.SQL("{}, pg_temp").format(sql.Identifier(schema))
    known = {
        role
        for (role,) in connection.execute(
            "SELECT r.rolname FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole"
            " JOIN pg_database d ON d.oid = s.setdatabase"
            " WHERE d.datname = current_database() AND %s = ANY (s.setconfig)",
            (f"search_path={path.as_string()}",),
        ).fetchall()
    }
    # A setting is looked up for the login, whatever role it takes on.
    for login in (login for role in ROLES for login in known_logins(connection, role)):
        if login not in known:
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}").format(
                    sql.Identifier(login), sql.Identifier(row[0]), path
                )
            )
