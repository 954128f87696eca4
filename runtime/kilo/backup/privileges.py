"""What a restored database and its objects are owned by and granted to, one statement each.

pg_restore does this by itself where it may do everything. A role that is no superuser may not give objects
to roles that it does not belong to, nor grant to roles that are missing; then pg_restore leaves both out
and they are set here as far as they can be, so that one refusal does not cost the rest. The database's own
properties are always set here: pg_dump leaves them to ``--create``, which names the source's database.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import sql

from kilo.backup.defaults import restore_defaults, roles_with_defaults
from kilo.backup.definitions import Database, Definitions
from kilo.backup.roles import attempt, role_names, set_parameter

_WORDS_TO_ALTER = {"FOREIGN SERVER": "SERVER"}
_GRANT_SELF = sql.SQL("GRANT {} TO CURRENT_USER")
_LATER = ("SEQUENCE", "SCHEMA")
"""A sequence of a column follows its table; who gives a schema away may no longer create in it."""


def restore_privileges(connection: psycopg.Connection[Any], definitions: Definitions) -> list[str]:
    """Set owners and grants of what is there, as far as the connecting role may. Returns what it could not.

    Args:
        connection: in autocommit mode.
        definitions: as the backup has them.
    """
    refused: list[str] = []
    roles = role_names(connection)
    missing: Counter[str] = Counter()
    grants = definitions.kinds.get("grants", {})
    for name, told in grants.items():
        for statement, role in _grants(name, json.loads(told)):
            if role and role not in roles:
                missing[role] += 1
            else:
                attempt(connection, statement, f"grants on {name.rpartition(' ON ')[2]}", refused)
    owners = definitions.kinds.get("owners", {})
    for name, owner in sorted(owners.items(), key=lambda owned: owned[0].startswith(_LATER)):
        if owner not in roles:
            missing[owner] += 1
        else:
            attempt(connection, _alter(name, owner), f"owner {owner} of {name}", refused)
    restore_defaults(connection, definitions, roles, refused)
    refused += [f"role {role} is missing: {count} owners or grants" for role, count in missing.items()]
    return refused


@contextmanager
def membership_in_owners(connection: psycopg.Connection[Any], definitions: Definitions) -> Generator[None]:
    """Belong for a while to the roles that shall own something, which giving it to them and reading it need,
    and to those that have default privileges.

    Who creates a role may; where it is refused, what the role owned stays the connecting role's.
    """
    privilege = "SET" if connection.info.server_version >= 160_000 else "MEMBER"
    joined: list[sql.Identifier] = []
    wanted = set(definitions.kinds.get("owners", {}).values()) | roles_with_defaults(definitions)
    for role in sorted(wanted & role_names(connection)):
        row = connection.execute("SELECT pg_has_role(%s, %s)", [role, privilege]).fetchone()
        name = sql.Identifier(role)
        if row and not row[0] and attempt(connection, _GRANT_SELF.format(name), "", []):
            joined.append(name)
    try:
        yield
    finally:
        for name in joined:
            attempt(connection, sql.SQL("REVOKE {} FROM CURRENT_USER").format(name), "", [])


def restore_database(
    connection: psycopg.Connection[Any], database: Database, *, with_roles: bool
) -> list[str]:
    """Set the properties of the connection's database: settings, comment, limit, and with roles its grants.

    Args:
        connection: in autocommit mode.
        database: as the backup has it.
        with_roles: whether to set what names roles, too.

    Returns:
        What could not be set, and why.
    """
    refused: list[str] = []
    name = connection.info.dbname
    this = sql.SQL("DATABASE {}").format(sql.Identifier(name))
    if with_roles:
        attempt(
            connection,
            sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(this),
            "grants on the database",
            refused,
        )
        for grant in database.grants:
            if grant.role != database.owner:
                statement = _grant(this, grant.role, [grant.privilege + ("*" if grant.grantable else "")])
                attempt(
                    connection,
                    statement,
                    f"{grant.privilege} on the database for {grant.role or 'PUBLIC'}",
                    refused,
                )
    for setting in database.settings:
        if not setting.role:
            set_parameter(connection, this, setting.name, setting.value, refused)
        elif with_roles:
            of = sql.SQL("ROLE {} IN {}").format(sql.Identifier(setting.role), this)
            set_parameter(connection, of, setting.name, setting.value, refused)
    if database.comment is not None:
        told = sql.SQL("COMMENT ON {} IS {}").format(this, database.comment)
        attempt(connection, told, "comment on the database", refused)
    if database.connection_limit != -1:
        told = sql.SQL("ALTER {} CONNECTION LIMIT {}").format(this, database.connection_limit)
        attempt(connection, told, "connection limit", refused)
    if with_roles:
        told = sql.SQL("ALTER {} OWNER TO {}").format(this, sql.Identifier(database.owner))
        attempt(connection, told, f"owner {database.owner} of the database", refused)
    return refused


def _grants(name: str, privileges: dict[str, list[str]]) -> list[tuple[sql.Composed, str]]:
    """The statements that leave exactly ``privileges`` to all but the owner, each with the role it is for."""
    column, _, on = name.rpartition(" ON ") if name.startswith("(") else ("", "", name)
    # The object's name is as the server quoted it.
    this = sql.SQL(cast("Any", on)) + sql.SQL("")
    statements = [] if column else [(sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(this), "")]
    for role, granted in privileges.items():
        statements.append((_grant(this, role, granted, column), role))
    return statements


def _grant(on: sql.Composable, role: str, granted: list[str], column: str = "") -> sql.Composed:
    plain = [privilege for privilege in granted if not privilege.endswith("*")]
    passed_on = [privilege.removesuffix("*") for privilege in granted if privilege.endswith("*")]
    to = sql.Identifier(role) if role else sql.SQL("PUBLIC")
    parts = [
        sql.SQL("GRANT {} ON {} TO {}{}").format(
            sql.SQL(cast("Any", ", ".join(f"{privilege} {column}" for privilege in privileges))),
            on,
            to,
            option,
        )
        for privileges, option in ((plain, sql.SQL("")), (passed_on, sql.SQL(" WITH GRANT OPTION")))
        if privileges
    ]
    return sql.SQL("; ").join(parts)


def _alter(name: str, owner: str) -> sql.Composed:
    word = next((word for word in _WORDS_TO_ALTER if name.startswith(word)), None)
    altered = name.replace(word, _WORDS_TO_ALTER[word], 1) if word else name
    return sql.SQL("ALTER {} OWNER TO {}").format(sql.SQL(cast("Any", altered)), sql.Identifier(owner))
