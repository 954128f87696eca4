"""The outbox for SQLAlchemy sessions (``pip install kilo[sqlalchemy]``).

::

    outbox_session.install(Session)   # a class, a sessionmaker, a scoped_session; nothing for all sessions

    with Session() as session:
        order.pay()
        outbox_session.record(session, Event("acme", "order", "42", "order.paid", {"total": 12}))
        session.commit()

What is recorded is written when the session commits, after its last flush: in one go, with the aggregates'
locks taken in one order and held for a moment only. What ends the transaction otherwise (a rollback, of a
savepoint too, ``close()``, an error) forgets what was recorded within. :func:`enqueue` writes at once and
says what became of it.

For an ``AsyncSession``, install on its ``sync_session_class`` (``Session`` by default). Each function takes
a ``scoped_session`` or an ``async_scoped_session`` too, as Flask's extension gives one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kilo.errors import BadInput
from kilo.extras import requires
from kilo.outbox.enqueue import COLUMNS, Enqueued, Event, explained, lock_order, outbox_in, values_of

with requires("sqlalchemy"):
    from sqlalchemy import Connection, TextClause, event, text
    from sqlalchemy.exc import IntegrityError
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, SessionTransaction, scoped_session, sessionmaker

_KEY = "kilo_outbox"
_VALUES = (
    f"({', '.join(COLUMNS)}) VALUES"
    f" ({', '.join(f'CAST(:{name} AS jsonb)' if name == 'payload' else f':{name}' for name in COLUMNS)})"
)

AnySession = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]


@dataclass(slots=True)
class _Recorded:
    """What a session is to write when it commits."""

    events: list[tuple[SessionTransaction | None, Event]] = field(default_factory=list)
    """With the transaction or savepoint that each belongs to."""
    schema: str | None = None
    """Where the outbox is; a session has one."""
    committing: bool = False
    """Whether they were written: what another hook records now is written at once."""


def install(sessions: type[Session] | sessionmaker[Any] | scoped_session[Any] = Session) -> None:
    """Have ``sessions`` write what was recorded when they commit; safe to call again."""
    for name, listener in (
        ("before_commit", _write),
        ("after_commit", _hand_to_parent),
        ("after_transaction_end", _forget),
    ):
        if not event.contains(sessions, name, listener):
            event.listen(sessions, name, listener)


def record(session: AnySession, one: Event, schema: str | None = None) -> str:
    """Have ``one`` written when ``session`` commits; returns its fingerprint.

    Args:
        session: on which the hook is installed.
        one: what to write.
        schema: where the outbox is (``database.schema_name`` of the stage's outputs), the same for all of a
            session; by default where the connection's own ``search_path`` finds it.

    Raises:
        BadInput: a field is not what the outbox takes, or the hook is not installed on this session.
    """
    plain = _plain(session)
    if not _installed(plain):
        msg = "the session does not write what is recorded: call kilo.outbox.sqlalchemy_session.install()"
        raise BadInput(msg)
    values_of(one)
    within = plain.get_nested_transaction() or plain.get_transaction() or plain.begin()
    recorded = _recorded(plain)
    recorded.schema = schema
    if recorded.committing:
        _insert(plain, [one])
    else:
        recorded.events.append((within, one))
    return one.fingerprint


def enqueue(session: Session | scoped_session[Any], one: Event, schema: str | None = None) -> Enqueued:
    """Write ``one`` now, in the transaction of ``session``; ``schema`` is as :func:`record` has it.

    Raises:
        FingerprintConflict: its fingerprint was used for another content.
        BadInput: a field is not what the outbox takes, and the message names it; or the session's connection
            commits each statement by itself.
    """
    plain = _plain(session)
    plain.flush()
    return _enqueue(plain.connection(), one, schema)


async def enqueue_async(
    session: AsyncSession | async_scoped_session[Any], one: Event, schema: str | None = None
) -> Enqueued:
    """As :func:`enqueue`, for asyncio; the events' locks are held until the transaction ends."""
    await session.flush()
    return await (await session.connection()).run_sync(_enqueue, one, schema)


def _plain(session: AnySession) -> Session:
    one: Session | AsyncSession
    one = session() if isinstance(session, scoped_session | async_scoped_session) else session
    return one.sync_session if isinstance(one, AsyncSession) else one


@cache
def _insert_into(schema: str | None, returning: str = "") -> TextClause:
    # A colon would be a parameter's.
    name = outbox_in(schema).replace(":", r"\:")
    return text(f"INSERT INTO {name} {_VALUES}{returning}")


def _recorded(session: Session) -> _Recorded:
    return session.info.setdefault(_KEY, _Recorded())


def _enqueue(connection: Connection, one: Event, schema: str | None) -> Enqueued:
    _check_transaction(connection)
    values = values_of(one)
    try:
        row = connection.execute(
            _insert_into(schema, " RETURNING id"), dict(zip(COLUMNS, values, strict=True))
        ).first()
    except IntegrityError as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return Enqueued(one.fingerprint, row[0] if row else None)
    raise problem


def _write(session: Session) -> None:
    # A savepoint's release is a commit too; the events go with the transaction around it.
    recorded = _recorded(session)
    if session.in_nested_transaction():
        return
    # First the flush, whose hooks record too.
    session.flush()
    _insert(session, [one for _, one in recorded.events])
    recorded.events.clear()
    recorded.committing = True


def _insert(session: Session, events: list[Event]) -> None:
    if not events:
        return
    rows: list[dict[str, Any]] = [
        dict(zip(COLUMNS, values_of(one), strict=True)) for one in sorted(events, key=lock_order)
    ]
    connection = session.connection()
    _check_transaction(connection)
    try:
        connection.execute(_insert_into(_recorded(session).schema), rows)
    except IntegrityError as error:
        if (problem := _explained(error)) is None:
            raise
    else:
        return
    raise problem


def _check_transaction(connection: Connection) -> None:
    # Every driver has it, and to ask for the isolation level is a round trip.
    if getattr(connection.connection, "autocommit", False):
        msg = (
            "the session's connection is in AUTOCOMMIT: the event would be kept when the change that it"
            " announces is not; give the session an engine with another isolation level"
        )
        raise BadInput(msg)


def _hand_to_parent(session: Session) -> None:
    """What was recorded in a savepoint that is released goes on with the transaction around it."""
    ended = session.get_nested_transaction()
    if ended is None:
        return
    recorded = _recorded(session)
    recorded.events = [(ended.parent if within is ended else within, one) for within, one in recorded.events]


def _forget(session: Session, ended: SessionTransaction) -> None:
    recorded = _recorded(session)
    recorded.events = [each for each in recorded.events if ended not in _with_parents(each[0])]
    if ended.parent is None:
        recorded.committing = False


def _with_parents(transaction: SessionTransaction | None) -> list[SessionTransaction]:
    found: list[SessionTransaction] = []
    while transaction is not None:
        found.append(transaction)
        transaction = transaction.parent
    return found


def _installed(session: Session) -> bool:
    return any(
        each is _write or getattr(each, "fn", None) is _write for each in session.dispatch.before_commit
    )


def _explained(error: IntegrityError) -> Exception | None:
    origin: Any = error.orig
    diagnosis = getattr(origin, "diag", None)
    # asyncpg has it on the exception that SQLAlchemy's own stands for.
    cause = getattr(origin, "__cause__", None)
    constraint = getattr(diagnosis, "constraint_name", None) or getattr(cause, "constraint_name", None)
    message = getattr(diagnosis, "message_primary", None) or getattr(cause, "message", None)
    return explained(constraint or "", message or "")
