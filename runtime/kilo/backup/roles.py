"""Roles, with what they may do, whom they belong to and their settings, but without passwords.

A restore makes the roles that are missing as far as the connecting role may, and leaves those that are there
as they are: they are the server's, and the provider's among them. What it could not do is told, not hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from kilo.backup.programs import one_line

_ROLES = """
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
  r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication,
  r.rolbypassrls AS bypassrls, r.rolconnlimit AS connection_limit, r.rolvaliduntil::text AS valid_until,
  shobj_description(r.oid, 'pg_authid') AS comment,
  (SELECT coalesce(json_object_agg(split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)), '{}')
    FROM pg_db_role_setting s, unnest(s.setconfig) c
      WHERE s.setrole = r.oid AND s.setdatabase = 0) AS settings,
  (SELECT coalesce(json_agg(json_build_object('role', of, 'admin', admin, 'inherit', inherit, 'set',
    "set")), '[]')
    FROM (SELECT pg_get_userbyid(m.roleid) AS of, bool_or(m.admin_option) AS admin,
        bool_or((to_jsonb(m) ->> 'inherit_option')::bool) AS inherit,
        bool_or((to_jsonb(m) ->> 'set_option')::bool) AS "set"
      FROM pg_auth_members m WHERE m.member = r.oid GROUP BY 1 ORDER BY 1) x) AS memberships
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname COLLATE "C\""""
_ATTRIBUTES: dict[str, LiteralString] = {
    "superuser": "SUPERUSER",
    "inherit": "INHERIT",
    "createrole": "CREATEROLE",
    "createdb": "CREATEDB",
    "login": "LOGIN",
    "replication": "REPLICATION",
    "bypassrls": "BYPASSRLS",
}
_ORDINARY = frozenset({"inherit", "login"})
"""Attributes that whoever may create roles may give."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Membership(_Model):
    """That a role belongs to ``role``; ``inherit`` and ``set`` since PostgreSQL 16."""

    role: str
    admin: bool
    inherit: bool | None
    set: bool | None


class Role(_Model):
    """A role without its password."""

    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    valid_until: str | None
    comment: str | None
    settings: dict[str, str]
    memberships: tuple[Membership, ...]


def read_roles(connection: psycopg.Connection[Any]) -> tuple[Role, ...]:
    """All roles of the server but PostgreSQL's own."""
    cursor = connection.execute(_ROLES)
    names = [column.name for column in cursor.description or ()]
    return tuple(Role.model_validate(dict(zip(names, row, strict=True))) for row in cursor.fetchall())


def role_names(connection: psycopg.Connection[Any]) -> set[str]:
    """The names of all roles."""
    return {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}


def create_roles(connection: psycopg.Connection[Any], roles: Sequence[Role]) -> list[str]:
    """Create those of ``roles`` that are missing, with memberships and settings, as far as that is allowed.

    Args:
        connection: in autocommit mode.
        roles: as the backup has them.

    Returns:
        What was not done, and why.
    """
    left_out: list[str] = []
    known = role_names(connection)
    created = [role for role in roles if role.name not in known and _create(connection, role, left_out)]
    known |= {role.name for role in created}
    for role in created:
        for membership in role.memberships:
            if membership.role in known:
                attempt(
                    connection,
                    _membership(role.name, membership),
                    f"role {role.name} in {membership.role}",
                    left_out,
                )
        for name, value in role.settings.items():
            set_parameter(
                connection, sql.SQL("ROLE {}").format(sql.Identifier(role.name)), name, value, left_out
            )
        if role.comment:
            told = sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role.name), role.comment)
            attempt(connection, told, f"comment on role {role.name}", left_out)
    return left_out


def _create(connection: psycopg.Connection[Any], role: Role, left_out: list[str]) -> bool:
    having = {name for name in _ATTRIBUTES if getattr(role, name)}
    wanted = having - _ORDINARY
    try:
        connection.execute(_statement(role, having))
    except psycopg.errors.InsufficientPrivilege as error:
        if wanted and attempt(
            connection, _statement(role, having & _ORDINARY), f"role {role.name}", left_out
        ):
            without = ", ".join(_ATTRIBUTES[name] for name in _ATTRIBUTES if name in wanted)
            left_out.append(f"role {role.name} is without {without}")
            return True
        if not wanted:
            left_out.append(f"role {role.name}: {one_line(error)}")
        return False
    return True


def _statement(role: Role, having: set[str] | frozenset[str]) -> sql.Composed:
    # What is not named is off by default, but for INHERIT, which is on.
    words: list[LiteralString] = [word for name, word in _ATTRIBUTES.items() if name in having]
    if "inherit" not in having:
        words.append("NOINHERIT")
    until = sql.SQL(" VALID UNTIL {}").format(role.valid_until) if role.valid_until else sql.SQL("")
    return sql.SQL("CREATE ROLE {} {} CONNECTION LIMIT {}{}").format(
        sql.Identifier(role.name), sql.SQL(" ").join(map(sql.SQL, words)), role.connection_limit, until
    )


def _membership(member: str, membership: Membership) -> sql.Composed:
    options = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
    if membership.inherit is None or membership.set is None:
        options = {"ADMIN": True} if membership.admin else {}
    told = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.SQL(cast("Any", name)), sql.SQL("TRUE" if value else "FALSE"))
        for name, value in options.items()
    )
    return sql.SQL("GRANT {} TO {}{}").format(
        sql.Identifier(membership.role),
        sql.Identifier(member),
        sql.SQL(" WITH {}").format(told) if options else sql.SQL(""),
    )


def set_parameter(
    connection: psycopg.Connection[Any], of: sql.Composable, name: str, value: str, left_out: list[str]
) -> None:
    """``ALTER of SET name``, with a value as pg_db_role_setting has it.

    The server quotes it: lists have quotes of their own there, which a literal would add to.
    """
    changing = sql.SQL("ALTER {} SET {} ").format(of, sql.SQL(".").join(map(sql.Identifier, name.split("."))))
    try:
        with connection.transaction():
            connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            connection.execute(changing + sql.SQL("FROM CURRENT"))
    except psycopg.Error:
        # Some can only be set as a session begins; none of those is a list.
        attempt(connection, changing + sql.SQL("TO {}").format(value), f"setting {name}", left_out)


def attempt(
    connection: psycopg.Connection[Any], statement: sql.SQL | sql.Composed, what: str, left_out: list[str]
) -> bool:
    """Run a statement, or note what it was and why it failed."""
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        left_out.append(f"{what}: {one_line(error)}")
        return False
    return True
