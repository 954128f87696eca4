"""The database roles, one a workload."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "kilo_ingest": "LOGIN",
        "kilo_worker": "LOGIN",
        "kilo_consumer": "LOGIN",
        "kilo_cdc": "LOGIN",
        "kilo_backup": "LOGIN",
        "kilo_auditor": "LOGIN",
        "kilo_destroyer": "LOGIN",
        "kilo_keymaker": "LOGIN",
        "kilo_rotator": "LOGIN",
        "kilo_usage": "LOGIN",
    }
)
"""Role attributes by role. What a role may touch is granted in the migrations; kilo_cdc also replicates."""


def apply_roles(connection: psycopg.Connection[Any], passwords: Mapping[str, str]) -> None:
    """Create the roles that are missing and set the given passwords.

    Passwords are sent as SCRAM verifiers (RFC 5802), so that no server log can hold one in plain.
    """
    for role, attributes in ROLES.items():
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if known is None:
            statement = sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), sql.SQL(attributes))  # pyright: ignore[reportArgumentType]
            try:
                with connection.transaction():
                    connection.execute(statement)
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                # Roles belong to the whole server: another database's migration made it meanwhile.
                pass
        password = passwords.get(role)
        if password:
            verifier = connection.pgconn.encrypt_password(
                password.encode(), role.encode(), b"scram-sha-256"
            ).decode()
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
            )
    _allow_replication(connection)
    _end_lost_replication(connection)


def _allow_replication(connection: psycopg.Connection[Any]) -> None:
    able = connection.execute("SELECT rolreplication FROM pg_roles WHERE rolname = 'kilo_cdc'").fetchone()
    if able and able[0]:
        return
    # Amazon RDS keeps the REPLICATION attribute to itself and grants a role instead.
    managed = connection.execute("SELECT FROM pg_roles WHERE rolname = 'rds_replication'").fetchone()
    statement = "ALTER ROLE kilo_cdc REPLICATION" if managed is None else "GRANT rds_replication TO kilo_cdc"
    connection.execute(statement)


def _end_lost_replication(connection: psycopg.Connection[Any]) -> None:
    """Let go of a slot soon after its reader is lost without a word; by default it is held for a minute."""
    setting = "wal_sender_timeout=20s"
    known = connection.execute("SELECT rolconfig FROM pg_roles WHERE rolname = 'kilo_cdc'").fetchone()
    if known and setting not in (known[0] or ()):
        connection.execute("ALTER ROLE kilo_cdc SET wal_sender_timeout = '20s'")


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
    for role in ROLES:
        if role not in known:
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}").format(
                    sql.Identifier(role), sql.Identifier(row[0]), path
                )
            )
