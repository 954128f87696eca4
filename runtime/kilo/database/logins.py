"""The logins of the database's roles, by generation: made, accepted, and ended when they are over.

A login may do nothing by itself: it takes its role on at its start (``ALTER ROLE … SET role``) and inherits
nothing. So rights, policies and triggers know the role alone, whichever generation has logged in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from kilo.errors import BadInput
from kilo.logins import Generation, login_of

_KNOWN = """
SELECT l.rolname, l.rolcanlogin FROM pg_roles l WHERE l.rolname = %(role)s OR (
  l.rolname ~ ('^' || %(role)s || '_[0-9]+$') AND EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
    WHERE m.member = l.oid AND r.rolname = %(role)s))
ORDER BY l.rolname
"""
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s"


def known_logins(connection: psycopg.Connection[Any], role: str) -> dict[str, bool]:
    """The logins of ``role`` that are there, itself included, and whether they may log in."""
    return dict(connection.execute(_KNOWN, {"role": role}).fetchall())


def check_step(connection: psycopg.Connection[Any], roles: Iterable[str], generation: Generation) -> None:
    """Make sure that what processes have now is accepted, where the former is to be.

    Raises:
        BadInput: the former generation is not that which the database knows.
    """
    if not generation.former_accepted:
        return
    known = {
        int(login.removeprefix(f"{role}_")) if login != role else 1
        for role in roles
        for login, may in known_logins(connection, role).items()
        if may
    }
    if known and not known.intersection(generation.accepted):
        msg = (
            f"kilo:database.credentials.generation: {generation.number}, but processes have"
            f" {max(known)}; it goes up by one at a time"
        )
        raise BadInput(msg)


def accept_login(connection: psycopg.Connection[Any], role: str, generation: int) -> str:
    """Have the login of ``role`` and ``generation``, and let it in; its name."""
    login = login_of(role, generation)
    known = known_logins(connection, role)
    name = sql.Identifier(login)
    if login not in known:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    elif not known[login]:
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(name))
    if login == role:
        return login
    connection.execute(
        sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(sql.Identifier(role), name)
    )
    found = connection.execute("SELECT rolconfig FROM pg_roles WHERE rolname = %s", (login,)).fetchone()
    if f"role={role}" not in ((found and found[0]) or ()):
        connection.execute(sql.SQL("ALTER ROLE {} SET role = {}").format(name, sql.Literal(role)))
    return login


def end_logins(
    connection: psycopg.Connection[Any], roles: Iterable[str], generation: Generation
) -> list[str]:
    """End the logins of other generations, with the sessions that they have; the names of those."""
    ended: list[str] = []
    for role in roles:
        accepted = {login_of(role, number) for number in generation.accepted}
        for login, may in known_logins(connection, role).items():
            if login in accepted:
                continue
            if may:
                _shut_out(connection, login)
                ended.append(login)
            if login != role:
                _drop(connection, login)
    return ended


def _shut_out(connection: psycopg.Connection[Any], login: str) -> None:
    name = sql.Identifier(login)
    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(name))
    # An administrator that is no superuser may end the sessions of roles that it has the rights of. It has
    # them for this alone: what is signalled stays signalled.
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(name))
        connection.execute(_END_SESSIONS, (login,))


def _drop(connection: psycopg.Connection[Any], login: str) -> None:
    try:
        with connection.transaction():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))
    except psycopg.errors.DependentObjectsStillExist:
        # It owns what it made after putting its role off. It may not log in, which is what counts.
        pass
