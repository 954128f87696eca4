"""Row-level security: a role that reads by policies may make backups, once it is sure to read every row.

pg_dump and the fingerprints refuse a table whose policies apply to their role, since what these hide would be
missing in silence. Managed PostgreSQL lets nobody give ``BYPASSRLS``; so a table is read by its policies
where one of them shows the role every row, and none takes rows away. Nothing less is tried to be understood.
"""

from __future__ import annotations

from typing import Any, cast

import psycopg
from psycopg import sql

from kilo.backup.fingerprints import Table
from kilo.backup.programs import one_line
from kilo.errors import CheckFailed

# Only what names the role itself, or everybody: who is a member of what may change during the dump.
_HIDDEN = """
SELECT c.oid FROM pg_class c JOIN pg_roles r ON r.rolname = current_user
WHERE c.oid = ANY(%s) AND row_security_active(c.oid) AND (
  EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive)
  OR NOT EXISTS (
    SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
      AND pg_get_expr(p.polqual, p.polrelid) = 'true'
      AND p.polroles && ARRAY[0, r.oid]))
"""
_UNDER_POLICIES = "SELECT count(*) FROM unnest(%s::oid[]) AS asked WHERE row_security_active(asked)"


def under_policies(
    snapshot: psycopg.Connection[Any], now: psycopg.Connection[Any], tables: list[Table]
) -> bool:
    """Whether this role reads some of ``tables`` by policies, which then show it every row until the end.

    Args:
        snapshot: the transaction of the backup, which keeps the tables' policies as they are by its locks.
        now: another connection of the role, outside of any transaction: a snapshot sees policies as they
            were, and reading obeys them as they are.
        tables: what is read.

    Raises:
        CheckFailed: rows may be hidden from the role, or it may not read a table at all.
    """
    oids = [table.oid for table in tables]
    if not _count(now, oids):
        # None may come under policies from now on: without them, reading such a table is an error.
        return False
    names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(table.identifier) for table in tables)
    try:
        snapshot.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    except psycopg.Error as error:
        msg = f"PostgreSQL: {one_line(error)}"
        raise CheckFailed(msg) from error
    hidden = {int(oid) for (oid,) in now.execute(_HIDDEN, [oids]).fetchall()}
    if hidden:
        role = snapshot.info.user
        named = ", ".join(table.key for table in tables if table.oid in hidden)
        msg = (
            f"row-level security may hide rows of {named} from {role}: give it BYPASSRLS, or CREATE POLICY … "
            f"ON … FOR SELECT TO {role} USING (true) and no restrictive one"
        )
        raise CheckFailed(msg)
    return True


def _count(connection: psycopg.Connection[Any], oids: list[int]) -> int:
    row = cast("tuple[int] | None", connection.execute(_UNDER_POLICIES, [oids]).fetchone())
    return row[0] if row else 0
