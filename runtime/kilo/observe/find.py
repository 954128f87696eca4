"""``kilo events find``: events by what is known of them, from what the platform itself has stored.

It looks into what ingest stored, the outbox and the dead letters, whichever still have the event. Payloads
are left out: they hold personal data, and an event is found by its envelope. The streams of the bus are left
out, since they can't be asked by content.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, LiteralString

import psycopg
import typer

from kilo.environment import database_url
from kilo.errors import BadInput, Unreachable

LONGEST_SECONDS = 15
"""After so long the database ends a search: it may have to read whole tables."""

# The traceparent is the row's; what ingest stored has none.
_SOURCES: tuple[tuple[LiteralString, LiteralString, LiteralString], ...] = (
    ("events", "received_at", "NULL::text"),
    ("outbox", "created_at", "traceparent"),
    ("dead_letters", "created_at", "traceparent"),
)
_CONDITIONS: dict[str, LiteralString] = {
    "tenant": "tenant = %(tenant)s",
    "aggregate_id": "aggregate_id = %(aggregate_id)s",
    "kind": "kind = %(kind)s",
    "fingerprint": "fingerprint = %(fingerprint)s",
    # https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags
    "trace": "substr({traceparent}, 4, 32) = %(trace)s",
    "since": "{at} >= %(since)s",
    "until": "{at} < %(until)s",
}
# All three have the time at which the event was committed, so that the newest of each hold the newest of all.
_SOURCE: LiteralString = """
(SELECT DISTINCT tenant, fingerprint, aggregate, aggregate_id, kind, {at} AS at, {traceparent} AS traceparent
 FROM {table} WHERE {conditions} ORDER BY at DESC, fingerprint, tenant LIMIT %(limit)s)"""
_FIND: LiteralString = """
WITH found AS (
    SELECT tenant, fingerprint, min(aggregate) AS aggregate, min(aggregate_id) AS aggregate_id,
           min(kind) AS kind, at, min(traceparent) AS traceparent
    FROM ({sources}) AS each GROUP BY tenant, fingerprint, at
    ORDER BY at DESC, fingerprint, tenant LIMIT %(limit)s
)
SELECT f.at, f.tenant, f.fingerprint, f.aggregate, f.aggregate_id, f.kind,
       coalesce(f.traceparent, o.traceparent),
       CASE WHEN o.publisher IS NULL THEN NULL WHEN o.dequeued_at IS NULL THEN 'waiting' ELSE 'published' END,
       ARRAY(SELECT i.consumer FROM inbox i WHERE i.tenant = f.tenant AND i.fingerprint = f.fingerprint
             AND i.created_at = f.at ORDER BY 1),
       ARRAY(SELECT DISTINCT d.state FROM dead_letters d WHERE d.tenant = f.tenant
             AND d.fingerprint = f.fingerprint AND d.created_at = f.at ORDER BY 1)
FROM found f
LEFT JOIN outbox_fingerprints p
    ON p.fingerprint = f.fingerprint AND p.tenant = f.tenant AND p.created_at = f.at
LEFT JOIN outbox o ON o.id = p.outbox_id AND o.created_at = p.created_at
ORDER BY f.at DESC, f.fingerprint, f.tenant
"""
_TRACE = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?")
_TEXT = re.compile(r"[!-~]{1,255}")

app = typer.Typer(no_args_is_help=True, help="Events that went through the platform.")


@dataclass(frozen=True, slots=True)
class Search:
    """What an event must be to be found; all that is given must hold. Times are with their zone."""

    tenant: str | None = None
    aggregate_id: str | None = None
    kind: str | None = None
    fingerprint: str | None = None
    trace: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An event, and where it is.

    Attributes:
        outbox: ``waiting`` or ``published``; None when its row there has expired.
        consumers: which have handled it, as far as the inbox remembers.
        dead_letters: the states of its dead letters.
    """

    at: datetime
    tenant: str
    fingerprint: str
    aggregate: str
    aggregate_id: str
    kind: str
    traceparent: str | None
    outbox: str | None
    consumers: list[str]
    dead_letters: list[str]


def find_events(connection: psycopg.Connection[Any], search: Search, limit: int) -> list[Found]:
    """The newest events that match, newest first, at most ``limit``.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than :data:`LONGEST_SECONDS`.
    """
    given = {name: value for name, value in asdict(search).items() if value is not None}
    sources: list[LiteralString] = []
    for table, at, traceparent in _SOURCES:
        if search.trace and traceparent != "traceparent":
            continue
        conditions: list[LiteralString] = ["true"]
        for name in given:
            conditions.append(_CONDITIONS[name].format(at=at, traceparent=traceparent))  # noqa: PERF401  types
        sources.append(
            _SOURCE.format(table=table, at=at, traceparent=traceparent, conditions=" AND ".join(conditions))
        )
    query = _FIND.format(sources=" UNION ALL ".join(sources))
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{LONGEST_SECONDS}s",))
        return [Found(*row) for row in connection.execute(query, {**given, "limit": limit})]


@app.callback()
def _group() -> None:
    """Events that went through the platform."""


@app.command()
def find(  # noqa: PLR0917  options, given by name
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    aggregate_id: Annotated[str | None, typer.Option(help="Only of the aggregate with this id.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only with this fingerprint.")] = None,
    trace: Annotated[
        str | None, typer.Option(help="Only of this trace: its id of 32 hex digits, or a traceparent.")
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Only stored at or after this time (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only stored before this time (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find events by tenant, aggregate id, kind, time, trace or fingerprint, newest first.

    Looks into what ingest stored, the outbox and the dead letters, in the database of DATABASE_URL. What a
    service wrote into the outbox by itself is found for as long as the outbox keeps it.

    Example:  kilo events find --tenant acme --aggregate-id 42 --since 2026-01-31T08:00:00
    """
    search = Search(
        _plain("--tenant", tenant),
        _plain("--aggregate-id", aggregate_id),
        _plain("--kind", kind),
        _plain("--fingerprint", fingerprint),
        _trace_id(trace),
        since and since.replace(tzinfo=UTC),
        until and until.replace(tzinfo=UTC),
    )
    if search.since and search.until and search.since >= search.until:
        msg = f"--since {since} is not before --until {until}: nothing lies between them"
        raise BadInput(msg)
    try:
        with psycopg.connect(database_url(), connect_timeout=10) as connection:
            found = find_events(connection, search, limit + 1)
    except psycopg.errors.QueryCanceled as error:
        msg = (
            f"the search took over {LONGEST_SECONDS} s: narrow it by --tenant with --since, or --fingerprint"
        )
        raise Unreachable(msg) from error
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    shown, more = found[:limit], len(found) > limit
    if as_json:
        events = [asdict(each) for each in shown]
        typer.echo(json.dumps({"events": events, "more": more}, default=datetime.isoformat, indent=2))
        return
    for each in shown:
        typer.echo(_lines(each))
    if not shown:
        typer.echo("no events match; what expired from events, outbox and dead letters is not found")
    elif more:
        typer.echo(f"and more: these are the newest {limit} (--limit, --until)")


def _plain(option: str, value: str | None) -> str | None:
    if value is not None and not _TEXT.fullmatch(value):
        msg = f"{option} {value[:80]!a}: must be 1 to 255 printable ASCII characters without spaces"
        raise BadInput(msg)
    return value


def _trace_id(value: str | None) -> str | None:
    if value is None:
        return None
    if not (found := _TRACE.fullmatch(value)):
        msg = f"--trace {value[:80]!a}: must be a trace id of 32 lower-case hex digits, or a traceparent"
        raise BadInput(msg)
    return found[1]


def _lines(each: Found) -> str:
    """Two lines an event, and no table: at 80 columns it would cut what is to be copied."""
    states = [
        f"{each.outbox} in the outbox" if each.outbox == "waiting" else each.outbox or "not in the outbox"
    ]
    states += [f"handled by {', '.join(each.consumers)}"] if each.consumers else []
    states += [f"dead letter {', '.join(each.dead_letters)}"] if each.dead_letters else []
    at = each.at.astimezone(UTC)
    text = (
        f"{at:%Y-%m-%d %H:%M:%S}  {each.kind} of {each.tenant}: {each.aggregate} {each.aggregate_id}\n"
        f"    {each.fingerprint}  {'; '.join(states)}"
    )
    # A dead letter has what stood on the bus: nothing of it may steer the terminal.
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
