"""``kilo trace``: an event's life from what the platform itself has stored, and the spans of its traces."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import psycopg
import typer

from kilo.environment import database_url
from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.observe.collected import Span, read_spans
from kilo.observe.tracing import parse_traceparent

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


def with_spans(steps: list[Step]) -> list[Step]:
    """The steps, and between them the spans of their traces that the collector kept, by time."""
    contexts = (parse_traceparent(step.traceparent) for step in steps)
    traces = {context.trace_id for context in contexts if context}
    spans = [
        Step(
            span.start,
            span.service,
            f"span {span.name}",
            _said(span),
            f"00-{span.trace_id}-{span.span_id}-01",
        )
        for span in read_spans(traces)
    ]
    return sorted([*steps, *spans], key=lambda step: step.at)


def _said(span: Span) -> str:
    said = [f"{span.seconds * 1000:.1f} ms"]
    said += ["failed"] if span.failed else []
    said += [f"kept since it was {span.reason}"] if span.reason else []
    return ", ".join(said)


def trace(
    fingerprint: Annotated[str, typer.Argument(help="TENANT/KEY, as ingest answered it.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose event it is, where several have the fingerprint.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Follow one event through every part: when it was stored, published, handled, parked, replayed.

    Reads the database of DATABASE_URL. `kilo events find` tells the fingerprint. Where the stage collects
    traces into files (monitoring.traces), KILO_TRACES names them, and the event's spans stand between its
    steps. A dev stage that is up sets both.

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
    told = with_spans(steps)
    if as_json:
        typer.echo(json.dumps([asdict(step) for step in told], default=str, indent=2))
        return
    first = told[0].at
    # Lines, and no table: at 80 columns it would cut where and what.
    typer.echo(f"{fingerprint}, first seen {first.isoformat(timespec='milliseconds')}")
    for step in told:
        after = (step.at - first).total_seconds()
        typer.echo(f"{f'+{after:.3f} s':>12}  {step.where}: {step.what}, {step.details}".rstrip(", "))
    known = next((step.traceparent for step in steps if step.traceparent), None)
    typer.echo(f"traceparent {known or 'none'}")
