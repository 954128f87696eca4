"""What a database's schema says, object by object, so that a restore that lost any of it shows.

Every kind of object has one query, which gives an object's name and what defines it; names are those of
``pg_identify_object`` and like functions, under an empty ``search_path``. Expressions come back from a
restore in another form than they were in (``(ARRAY['a'::varchar])::text[]`` becomes
``ARRAY[('a'::varchar)::text]``), so they are compared without casts, parentheses and spacing. What an
extension brings is its own and left out.

Sequences move on while a backup runs, in no transaction: their values are read before the dump and after it,
and a restored one must lie between.

Never in a backup, and so not compared: passwords of roles; replication slots, the state of subscriptions, and
passwords of foreign servers and subscriptions; tablespaces; invalid indexes; planner statistics; the server's
configuration; rows of foreign tables; other databases. Materialized views are made anew from what they read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, LiteralString, cast

import psycopg
import rfc8785
from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilo.backup.encodings import byte_by_byte
from kilo.backup.fingerprints import qualified
from kilo.backup.kinds import KINDS
from kilo.backup.manifest import DefinitionState
from kilo.backup.programs import one_line
from kilo.backup.roles import Role, read_roles
from kilo.errors import CheckFailed

SCHEMA = "schema.json"
"""The object of a backup that holds its :class:`Definitions`."""
OF_ROLES = frozenset({"owners", "grants", "default privileges"})
"""Kinds that say nothing but what roles have."""

_TOKENS = re.compile(
    r"""(?P<kept>'(?:[^']|'')*'|(?<!::)"(?:[^"]|"")*")
    | ::\s?(?:"(?:[^"]|"")*"|\w+)(?:\.(?:"(?:[^"]|"")*"|\w+))*
      (?:\ varying|\ precision)?(?:\(\d+(?:,\d+)?\))?(?:\ with(?:out)?\ time\ zone)?(?:\[\])*
    | [()]
    | \s+""",
    re.VERBOSE,
)
_SERVERS_OWN = re.compile(r'"pg_attver=\d+"(?:, )?|, "pg_attver=\d+"')
_SEQUENCES = """
SELECT n.nspname, c.relname, s.seqincrement FROM pg_sequence s
JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C\""""
_DATABASE = """
SELECT pg_get_userbyid(d.datdba), d.datconnlimit, shobj_description(d.oid, 'pg_database'),
  (SELECT coalesce(json_agg(json_build_object('privilege', privilege_type, 'grantable', is_grantable,
      'role', CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END)), '[]')
    FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba)))),
  (SELECT coalesce(json_agg(json_build_object(
      'role', CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole) END, 'name', split_part(c,
        '=', 1), 'value', substr(c, strpos(c, '=') + 1))), '[]')
    FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setdatabase = d.oid)
FROM pg_database d WHERE d.datname = current_database()"""
_TABLESPACES = """
SELECT DISTINCT s.spcname FROM pg_tablespace s JOIN pg_class c ON c.reltablespace = s.oid
WHERE s.spcname !~ '^pg_' ORDER BY 1"""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grant(_Model):
    """A privilege on the database; ``role`` is empty for PUBLIC."""

    role: str
    privilege: str
    grantable: bool


class Setting(_Model):
    """``ALTER DATABASE … SET``, or with a role ``ALTER ROLE … IN DATABASE … SET``."""

    role: str
    name: str
    value: str


class Database(_Model):
    """What pg_dump leaves to ``--create``: the database's own properties."""

    owner: str
    connection_limit: int
    comment: str | None
    grants: tuple[Grant, ...]
    settings: tuple[Setting, ...]


class Sequence(_Model):
    """The value that a sequence gives next, before the dump and after it."""

    before: int
    after: int
    ascending: bool

    def allows(self, value: int) -> bool:
        """Whether a dump between both may have had ``value``. What ran backwards may have had any."""
        low, high = sorted((self.before, self.after))
        backwards = low != high and (self.before < self.after) != self.ascending
        return backwards or low <= value <= high


class Definitions(_Model):
    """All that is compared of a database but its rows, and what a restore makes roles from."""

    kinds: dict[str, dict[str, str]]
    sequences: dict[str, Sequence]
    roles: tuple[Role, ...]
    database: Database
    tablespaces: tuple[str, ...] = Field(default=())

    def states(self) -> dict[str, DefinitionState]:
        """How many objects of each kind there are, and the digest of what defines them."""
        return {
            kind: DefinitionState(
                objects=len(found), sha256=hashlib.sha256(rfc8785.dumps(cast("Any", found))).hexdigest()
            )
            for kind, found in self.kinds.items()
        }

    def content(self) -> bytes:
        """The JSON form."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, content: bytes, place: str) -> Definitions:
        """Read the JSON form.

        Raises:
            CheckFailed: it is none.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            msg = f"{place}: {where}: {first['msg']}"
            raise CheckFailed(msg) from error


def read_definitions(connection: psycopg.Connection[Any]) -> Definitions:
    """Read everything that is compared, through the connection's snapshot.

    Raises:
        CheckFailed: this role may not read some of it.
    """
    kind = "database"
    kinds: dict[str, dict[str, str]] = {}
    try:
        database = _read_database(connection)
        roles = read_roles(connection)
        tablespaces = tuple(str(row[0]) for row in connection.execute(_TABLESPACES).fetchall())
        for kind, query in KINDS.items():
            kinds[kind] = {
                name: facts + (f" {_plain(told)}" if told else "")
                for name, facts, told in _texts(connection, query)
            }
        kind = "sequences"
        sequences = {
            name: Sequence(before=value, after=value, ascending=ascending)
            for name, (value, ascending) in read_sequences(connection).items()
        }
    except psycopg.Error as error:
        msg = f"reading the definitions of {kind}: {one_line(error)}"
        raise CheckFailed(msg) from error
    return Definitions(
        kinds=kinds | {"database": _properties(database)},
        sequences=sequences,
        roles=roles,
        database=database,
        tablespaces=tablespaces,
    )


def _texts(connection: psycopg.Connection[Any], query: LiteralString) -> list[tuple[str, str, str | None]]:
    """A query's rows. SQL_ASCII takes any bytes for text: what is no UTF-8 is read byte by byte."""
    try:
        with connection.transaction():
            return connection.execute(query).fetchall()
    except psycopg.errors.CharacterNotInRepertoire:
        if connection.info.parameter_status("server_encoding") != "SQL_ASCII":
            raise
    with byte_by_byte(connection):
        return connection.execute(query).fetchall()


def read_sequences(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, bool]]:
    """The value that each sequence gives next, and whether it counts upwards."""
    found: dict[str, tuple[int, bool]] = {}
    for schema, name, step in connection.execute(_SEQUENCES).fetchall():
        query = sql.SQL("SELECT last_value + CASE WHEN is_called THEN {} ELSE 0 END::numeric FROM {}")
        row = connection.execute(query.format(step, sql.Identifier(schema, name))).fetchone()
        found[qualified(schema, name)] = (int(row[0]) if row else 0, step > 0)
    return found


def compare_definitions(
    expected: Definitions, found: Definitions, *, but: Iterable[str] = (), names_only: bool = False
) -> list[str]:
    """What of ``expected`` is missing or different in ``found``, or is there besides, as "kind: name …".

    Args:
        expected: as the backup has them.
        found: as a restored database has them.
        but: kinds that are not compared.
        names_only: compare only whether everything is there.
    """
    wrong: list[str] = []
    for kind in sorted((expected.kinds.keys() | found.kinds.keys()) - set(but)):
        before, after = (_written(kind, each.kinds.get(kind, {})) for each in (expected, found))
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                wrong.append(f"{kind}: {name} is missing")
            elif names_only:
                continue
            elif name not in before:
                wrong.append(f"{kind}: {name} is not in the backup")
            elif before[name] != after[name]:
                wrong.append(f"{kind}: {name} is another")
    for name, sequence in expected.sequences.items():
        now = found.sequences.get(name)
        if now is not None and not sequence.allows(now.before):
            wrong.append(f"sequences: {name} is at {now.before} and not at {sequence.before}")
    return wrong


def _written(kind: str, found: dict[str, str]) -> dict[str, str]:
    """Without what a server writes for itself: PostgreSQL 17.12 keeps a version with each column, and backups
    that were taken before that was left out have it."""
    if kind != "columns":
        return found
    return {
        name: _SERVERS_OWN.sub("", facts).replace('"options": []', '"options": null')
        for name, facts in found.items()
    }


def _read_database(connection: psycopg.Connection[Any]) -> Database:
    row = connection.execute(_DATABASE).fetchone()
    owner, limit, comment, grants, settings = cast("tuple[Any, ...]", row)
    return Database.model_validate(
        {
            "owner": owner,
            "connection_limit": limit,
            "comment": comment,
            "grants": sorted(grants, key=lambda grant: (grant["role"], grant["privilege"])),
            "settings": sorted(settings, key=lambda setting: (setting["role"], setting["name"])),
        }
    )


def _properties(database: Database) -> dict[str, str]:
    """A database's properties as objects of a kind. Its owner is who restores, and so the owner's grants."""
    found = {"connection limit": str(database.connection_limit), "comment": database.comment or ""}
    for setting in database.settings:
        found[f"{setting.name} of {setting.role or 'everybody'}"] = setting.value
    for grant in database.grants:
        if grant.role != database.owner:
            found[f"{grant.privilege} of {grant.role or 'PUBLIC'}"] = (
                "may pass on" if grant.grantable else "may"
            )
    return found


def _plain(expression: str) -> str:
    """An expression without casts, parentheses and spacing, which a restore writes anew."""
    return _TOKENS.sub(lambda match: match["kept"] or "", expression)
