"""Declares in the database what change capture reads: aggregates, publication, replication slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from kilo.contract import OutboxOutputs


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What changed."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    publication_created: bool
    slot_created: bool


def apply_capture(connection: psycopg.Connection[Any], outbox: OutboxOutputs) -> CaptureReport:
    """Bring the database to what ``outbox`` declares; may be called again at any time, while events flow.

    A row's publisher is decided when it is inserted, from the list that this sets, and the publication
    lets through rows whose publisher is change capture. So a change of the list loses and doubles nothing.

    Args:
        connection: an administrator's, in autocommit mode.
        outbox: the stage's outbox.
    """
    wanted = set(outbox.cdc_aggregates)
    publication = _publication(connection, outbox)
    # The slot comes first: what is inserted for change capture before there is one would never reach it.
    slot = bool(wanted) and _slot(connection, outbox.replication_slot)
    _pass_over_former_rows(connection, outbox.replication_slot)
    with connection.transaction():
        rows: list[Any] = connection.execute("SELECT aggregate FROM outbox_cdc_aggregates").fetchall()
        known = {row[0] for row in rows}
        _set_aggregates(connection, sorted(wanted - known), sorted(known - wanted))
    return CaptureReport(tuple(sorted(wanted - known)), tuple(sorted(known - wanted)), publication, slot)


def _set_aggregates(connection: psycopg.Connection[Any], add: Sequence[str], remove: Sequence[str]) -> None:
    for aggregate in add:
        connection.execute(
            "INSERT INTO outbox_cdc_aggregates VALUES (%s) ON CONFLICT DO NOTHING", (aggregate,)
        )
    if remove:
        connection.execute("DELETE FROM outbox_cdc_aggregates WHERE aggregate = ANY(%s)", (list(remove),))


def _publication(connection: psycopg.Connection[Any], outbox: OutboxOutputs) -> bool:
    known = connection.execute(
        "SELECT FROM pg_publication WHERE pubname = %s", (outbox.publication,)
    ).fetchone()
    if known is not None:
        return False
    connection.execute(
        sql.SQL(
            "CREATE PUBLICATION {} FOR TABLE {} WHERE (publisher = 'cdc')"
            " WITH (publish = 'insert', publish_via_partition_root = true)"
        ).format(sql.Identifier(outbox.publication), sql.Identifier(outbox.table))
    )
    return True


def _slot(connection: psycopg.Connection[Any], name: str) -> bool:
    known = connection.execute(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()",
        (name,),
    ).fetchone()
    if known is not None and known[0] != "lost":
        return False
    if known is not None:
        # Its WAL is gone: only a new slot can stream again. The reconciler publishes what fell between.
        connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    return True


def _pass_over_former_rows(connection: psycopg.Connection[Any], name: str) -> None:
    """Have the slot begin where rows have the columns that the connector is configured with.

    It can't read rows from before and would stop at them for good. The reconciler publishes those that no
    connector has carried. A slot that is being read is left alone: its reader is the former connector.
    """
    connection.execute(
        "SELECT pg_replication_slot_advance(s.slot_name, f.position) FROM outbox_capture_from f"
        " JOIN pg_replication_slots s ON s.confirmed_flush_lsn < f.position"
        " WHERE s.slot_name = %s AND s.database = current_database() AND NOT s.active"
        " AND f.position <= pg_current_wal_lsn()",
        (name,),
    )
