"""Default privileges of a restored database, one statement each, as far as the connecting role may.

pg_restore sets them by itself where it may do everything; ``kilo.backup.privileges`` says why it is not asked
to elsewhere. https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from kilo.backup.definitions import Definitions
from kilo.backup.roles import attempt

KIND = "default privileges"
_NAME = r'"(?:[^"]|"")+"|[^ "]+'
_KEY = re.compile(rf"(?P<role>{_NAME}) (?P<schema>\*|{_NAME}) (?P<type>[A-Za-z])")
_TYPES: dict[str, LiteralString] = {
    "L": "LARGE OBJECTS",
    "S": "SEQUENCES",
    "T": "TYPES",
    "f": "FUNCTIONS",
    "n": "SCHEMAS",
    "r": "TABLES",
}


def roles_with_defaults(definitions: Definitions) -> set[str]:
    """The roles whose new objects get other privileges than usual."""
    return {role for _, role, _, _ in _read(definitions)}


def restore_defaults(
    connection: psycopg.Connection[Any], definitions: Definitions, roles: set[str], refused: list[str]
) -> None:
    """Set them for the roles that are there, and note what is refused.

    Args:
        connection: in autocommit mode, of a role that belongs to those roles.
        definitions: as the backup has them.
        roles: the roles that are there.
        refused: what could not be set, and why, is added here.
    """
    for name, role, begin, statements in _read(definitions):
        if role not in roles:
            refused.append(f"{KIND} {name}: role {role} is missing")
            continue
        for grantee, statement in statements:
            if grantee and grantee not in roles:
                refused.append(f"{KIND} {name}: role {grantee} is missing")
            else:
                attempt(connection, begin + statement, f"{KIND} {name}", refused)


def _read(
    definitions: Definitions,
) -> Iterator[tuple[str, str, sql.Composed, list[tuple[str, sql.Composed]]]]:
    """Each one's name and role, the statement's beginning, and its ends with whom each is for."""
    for name, told in definitions.kinds.get(KIND, {}).items():
        found = _KEY.fullmatch(name)
        if found is None or found["type"] not in _TYPES:
            continue
        role, on = unquoted(found["role"]), sql.SQL(_TYPES[found["type"]])
        begin = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} ").format(sql.Identifier(role))
        ends: list[tuple[str, sql.Composed]] = []
        if found["schema"] != "*":
            begin += sql.SQL("IN SCHEMA {} ").format(sql.Identifier(unquoted(found["schema"])))
        else:
            # Those of a schema add to what there is, these are all there is.
            whom = sql.SQL("PUBLIC, {}").format(sql.Identifier(role))
            ends.append(("", sql.SQL("REVOKE ALL ON {} FROM {}").format(on, whom)))
        granted: dict[str, list[str]] = json.loads(told) if told else {}
        ends += [end for grantee, privileges in granted.items() for end in _grants(grantee, privileges, on)]
        yield name, role, begin, ends


def _grants(grantee: str, privileges: list[str], on: sql.SQL) -> Iterator[tuple[str, sql.Composed]]:
    to = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
    for privilege in privileges:
        option = sql.SQL(" WITH GRANT OPTION" if privilege.endswith("*") else "")
        word = sql.SQL(cast("Any", privilege.removesuffix("*")))
        yield grantee, sql.SQL("GRANT {} ON {} TO {}{}").format(word, on, to, option)


def unquoted(name: str) -> str:
    """A name as it is, of one that the server quoted where that was needed."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
