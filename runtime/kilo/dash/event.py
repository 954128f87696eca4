"""One event's page: what ``kilo trace`` tells, from the database and the collector's files."""

from __future__ import annotations

from typing import Any

import psycopg

from kilo.callers import refusal
from kilo.environment import database_url
from kilo.errors import BadInput, RoleDenied, Unreachable
from kilo.observe.trace import life_of, with_spans

_LONGEST = 255


def read_event(fingerprint: str, tenant: str | None) -> dict[str, Any]:
    """The steps of an event, with the spans between them, and seconds after the first.

    Raises:
        BadInput: there is no such event, or several tenants have one of that fingerprint.
        RoleDenied: the database's role may not read all of it.
        Unreachable: the database does not answer.
    """
    if not fingerprint.isprintable() or not 0 < len(fingerprint) <= _LONGEST:
        msg = f"a fingerprint is TENANT/KEY, of 1 to {_LONGEST} printable characters"
        raise BadInput(msg)
    try:
        with psycopg.connect(database_url(), connect_timeout=10) as connection:
            connection.execute("SET default_transaction_read_only = on")
            steps = with_spans(life_of(connection, fingerprint, tenant))
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise RoleDenied(refusal(error, ["dash"])) from error
    if not steps:
        msg = f"no event {fingerprint!r}: a fingerprint is TENANT/KEY, and is kept as long as its rows are"
        raise BadInput(msg)
    first = steps[0].at
    return {
        "fingerprint": fingerprint,
        "first": first.isoformat(timespec="milliseconds"),
        "steps": [
            {
                "after": (step.at - first).total_seconds(),
                "where": step.where,
                "what": step.what,
                "details": step.details or "",
            }
            for step in steps
        ],
    }
