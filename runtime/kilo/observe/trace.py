"""``kilo trace``: an event's whole life, from what the platform itself has stored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import psycopg
import typer

from kilo.environment import database_url
from kilo.errors import BadInput, CheckFailed, Unreachable

_STEPS = """
SELECT received_at, 'ingest', 'stored', kind || ' of ' || aggregate || ' ' || aggregate_id, NULL
FROM events WHERE fingerprint = %(f)s AND tenant = %(t)s
UNION ALL
SELECT created_at, 'outbox', 'written', 'row ' || id || ', goes by ' || publisher, traceparent
FROM outbox WHERE id IN (
    SELECT outbox_id FROM outbox_fingerprints WHERE fingerprint = %(f)s AND tenant = %(t)s
)
UNION ALL
SELECT dequeued_at, publisher, 'published', 'acknowledged by the bus', traceparent
FROM outbox WHERE dequeued_at IS NOT NULL
AND id IN (
    SELECT outbox_id FROM outbox_fingerprints WHERE fingerprint = %(f)s AND tenant = %(t)s
)
UNION ALL
SELECT received_at, 'consumer ' || consumer, 'handled',
       CASE duplicates WHEN 0 THEN 'by ' || publisher
                       ELSE 'by ' || publisher || ', ' || duplicates || ' duplicates suppressed' END, NULL
FROM inbox WHERE fingerprint = %(f)s AND tenant = %(t)s
UNION ALL
SELECT first_at, 'consumer ' || consumer, CASE error WHEN '' THEN 'held behind' ELSE 'failed' END, error,
       traceparent
FROM dead_letters WHERE fingerprint = %(f)s AND tenant = %(t)s
UNION ALL
SELECT last_at, 'dead letter ' || id, state, attempts || ' attempts, ' || replays || ' replays', traceparent
FROM dead_letters WHERE fingerprint = %(f)s AND tenant = %(t)s AND (last_at > first_at OR state <> 'parked')
UNION ALL
SELECT e.edited_at, 'dead letter ' || d.id, 'edited', 'by ' || e.edited_by, NULL
FROM dead_letter_edits e JOIN dead_letters d ON d.id = e.dead_letter_id
WHERE d.fingerprint = %(f)s AND d.tenant = %(t)s
ORDER BY 1
"""
_TENANTS = """
SELECT tenant FROM events WHERE fingerprint = %(f)s
UNION SELECT tenant FROM outbox_fingerprints WHERE fingerprint = %(f)s
UNION SELECT tenant FROM inbox WHERE fingerprint = %(f)s
UNION SELECT tenant FROM dead_letters WHERE fingerprint = %(f)s
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an event's life."""

    at: datetime
    where: str
    what: str
    details: str
    traceparent: str | None


def life_of(connection: psycopg.Connection[Any], fingerprint: str, tenant: str | None = None) -> list[Step]:
    """The steps of the event with ``fingerprint``, oldest first.

    Args:
        connection: with a role that may read the tables.
        fingerprint: unique for one tenant; two may have the same.
        tenant: whose event it is; not needed while one tenant alone has the fingerprint.

    Raises:
        BadInput: events of several tenants have the fingerprint, and no tenant is given.
    """
    if tenant is None:
        tenants = [str(row[0]) for row in connection.execute(_TENANTS, {"f": fingerprint})]
        if len(tenants) > 1:
            msg = f"{fingerprint!r} is a fingerprint of {', '.join(tenants)}: give one of them as --tenant"
            raise BadInput(msg)
        tenant = next(iter(tenants), None)
    rows = connection.execute(_STEPS, {"f": fingerprint, "t": tenant}).fetchall()
    return [Step(*row) for row in rows]


def trace(
    fingerprint: Annotated[str, typer.Argument(help="TENANT/KEY, as ingest answered it.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose event it is, where several have the fingerprint.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Follow one event through every part: when it was stored, published, handled, parked, replayed.

    Reads the database of DATABASE_URL. `kilo events find` tells the fingerprint.

    Example:  kilo trace acme/order-42
    """
    try:
        with psycopg.connect(database_url(), connect_timeout=10) as connection:
            steps = life_of(connection, fingerprint, tenant)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    if not steps:
        of = f" of {tenant}" if tenant else ""
        msg = (
            f"no event {fingerprint!r}{of}: a fingerprint is TENANT/KEY, and is kept as long as its rows are"
        )
        raise CheckFailed(msg)
    if as_json:
        typer.echo(json.dumps([asdict(step) for step in steps], default=str, indent=2))
        return
    # Lines, and no table: at 80 columns it would cut where and what.
    typer.echo(f"{fingerprint}, first seen {steps[0].at.isoformat(timespec='milliseconds')}")
    for step in steps:
        after = (step.at - steps[0].at).total_seconds()
        typer.echo(f"{f'+{after:.3f} s':>12}  {step.where}: {step.what}, {step.details}".rstrip(", "))
    known = next((step.traceparent for step in steps if step.traceparent), None)
    typer.echo(f"traceparent {known or 'none'}")
