"""The outbox for SQLAlchemy sessions (``pip install kilo[sqlalchemy]``).

::

    outbox_session.install(Session)   # a session class, a sessionmaker, or nothing for all sessions

    with Session() as session:
        order.pay()
        outbox_session.record(session, Event("acme", "order", "42", "order.paid", {"total": 12}))
        session.commit()

What is recorded is written when the session commits, after its last flush: in one go, with the aggregates'
locks taken in one order and held for a moment only. A rollback, of a savepoint too, forgets what was
recorded within. :func:`enqueue` writes at once and says what became of it.

For an ``AsyncSession``, install on its ``sync_session_class`` (``Session`` by default).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from kilo.errors import BadInput
from kilo.outbox.enqueue import COLUMNS, Enqueued, Event, explained, values_of

_KEY = "kilo_outbox"
_INSERT = text(
    f"INSERT INTO outbox ({', '.join(COLUMNS)}) VALUES"  # noqa: S608  names of our own
    f" ({', '.join(f'CAST(:{name} AS jsonb)' if name == 'payload' else f':{name}' for name in COLUMNS)})"
    " RETURNING id"
)
_INSERT_MANY = text(_INSERT.text.removesuffix(" RETURNING id"))

_Recorded = list[tuple[SessionTransaction | None, Event]]


def install(sessions: type[Session] | sessionmaker[Any] = Session) -> None:
    """Have ``sessions`` write what was recorded when they commit; safe to call again."""
    for name, listener in (("before_commit", _write), ("after_soft_rollback", _forget)):
        if not event.contains(sessions, name, listener):
            event.listen(sessions, name, listener)


def record(session: Session | AsyncSession, one: Event) -> str:
    """Have ``one`` written when ``session`` commits; returns its fingerprint.

    Raises:
        BadInput: the payload is not what the outbox takes, or the hook is not installed on this session.
    """
    plain = session.sync_session if isinstance(session, AsyncSession) else session
    if not _installed(plain):
        msg = "the session does not write what is recorded: call kilo.outbox.sqlalchemy_session.install()"
        raise BadInput(msg)
    fingerprint, _ = values_of(one)
    within = plain.get_nested_transaction() or plain.get_transaction() or plain.begin()
    recorded: _Recorded = plain.info.setdefault(_KEY, [])
    recorded.append((within, one))
    return fingerprint


def enqueue(session: Session, one: Event) -> Enqueued:
    """Write ``one`` now, in the transaction of ``session``.

    Raises:
        FingerprintConflict: its fingerprint was used for another content.
        BadInput: a field is not what the outbox takes; the message names it.
    """
    session.flush()
    return _enqueue(session.connection(), one)


async def enqueue_async(session: AsyncSession, one: Event) -> Enqueued:
    """As :func:`enqueue`, for asyncio; the events' locks are held until the transaction ends."""
    await session.flush()
    return await (await session.connection()).run_sync(_enqueue, one)


def _enqueue(connection: Connection, one: Event) -> Enqueued:
    fingerprint, values = values_of(one)
    try:
        row = connection.execute(_INSERT, dict(zip(COLUMNS, values, strict=True))).first()
    except IntegrityError as error:
        raise _explained(error, fingerprint) from error
    return Enqueued(fingerprint, row[0] if row else None)


def _write(session: Session) -> None:
    # A savepoint's release is a commit too; the events go with the transaction around it.
    if session.in_nested_transaction():
        return
    recorded: _Recorded = session.info.pop(_KEY, [])
    if not recorded:
        return
    session.flush()
    # Everyone takes the aggregates' locks in the same order, so that two sessions can't deadlock.
    events = sorted((one for _, one in recorded), key=lambda each: (each.aggregate, each.aggregate_id))
    rows: list[dict[str, Any]] = [dict(zip(COLUMNS, values_of(one)[1], strict=True)) for one in events]
    try:
        session.connection().execute(_INSERT_MANY, rows)
    except IntegrityError as error:
        raise _explained(error, "one of the recorded") from error


def _forget(session: Session, ended: SessionTransaction) -> None:
    recorded: _Recorded = session.info.get(_KEY, [])
    session.info[_KEY] = [(within, one) for within, one in recorded if ended not in _with_parents(within)]


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


def _explained(error: IntegrityError, fingerprint: str) -> Exception:
    origin: Any = error.orig
    diagnosis = getattr(origin, "diag", None)
    # asyncpg has it on the exception that SQLAlchemy's own stands for.
    constraint = getattr(diagnosis, "constraint_name", None) or getattr(
        getattr(origin, "__cause__", None), "constraint_name", None
    )
    message = getattr(diagnosis, "message_primary", None) or fingerprint
    return explained(constraint or "", message) or error
