"""The outbox in SQLAlchemy's transactions: written with them, gone with them, in one order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from kilo.errors import BadInput
from kilo.outbox import Event, FingerprintConflict
from kilo.outbox.sqlalchemy_session import enqueue, enqueue_async, install, record


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class OutboxSession(Session):
    """A class of its own, so that the hook is on nothing else."""


install(OutboxSession)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def an_event(n: int, aggregate_id: str = "1", total: int = 1) -> Event:
    return Event("acme", "order", aggregate_id, "order.paid", {"total": total}, f"acme/{n}")


def written(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT fingerprint FROM outbox ORDER BY id")]


def test_what_is_recorded_is_written_by_the_commit_and_not_before(engine: Engine, database_url: str) -> None:
    with OutboxSession(engine) as session:
        session.add(Order(id=1))
        assert record(session, an_event(1)) == "acme/1"
        record(session, an_event(2))
        session.flush()
        assert session.execute(text("SELECT count(*) FROM outbox")).scalar() == 0
        session.commit()
        record(session, an_event(3))
        session.commit()
        session.commit()
    assert written(database_url) == ["acme/1", "acme/2", "acme/3"]


def test_a_rollback_forgets(engine: Engine, database_url: str) -> None:
    with OutboxSession(engine) as session:
        record(session, an_event(1))
        session.rollback()
        record(session, an_event(2))
        session.commit()
        record(session, an_event(3))
    assert written(database_url) == ["acme/2"]


def test_a_rolled_back_savepoint_forgets_what_was_recorded_in_it(engine: Engine, database_url: str) -> None:
    with OutboxSession(engine) as session:
        record(session, an_event(1))
        with session.begin_nested():
            record(session, an_event(2))
        savepoint = session.begin_nested()
        record(session, an_event(3))
        with session.begin_nested():
            record(session, an_event(4))
        savepoint.rollback()
        record(session, an_event(5))
        session.commit()
    assert written(database_url) == ["acme/1", "acme/2", "acme/5"]


def test_a_commit_that_fails_leaves_neither_row_nor_event(engine: Engine, database_url: str) -> None:
    with OutboxSession(engine) as session:
        session.add(Order(id=1))
        record(session, an_event(1))
        session.commit()
    with OutboxSession(engine) as session:
        session.add(Order(id=2))
        record(session, an_event(1, total=2))
        with pytest.raises(FingerprintConflict, match="acme/1 was used for another content"):
            session.commit()
        session.rollback()
        assert session.get(Order, 2) is None
    assert written(database_url) == ["acme/1"]


def test_sessions_that_record_in_opposite_order_do_not_deadlock(engine: Engine, database_url: str) -> None:
    ready = threading.Barrier(2)
    errors: list[Exception] = []

    def commit(first: str, second: str, start: int) -> None:
        for n in range(start, start + 40, 2):
            with OutboxSession(engine) as session:
                record(session, an_event(n, first))
                record(session, an_event(n + 1, second))
                ready.wait(20)
                try:
                    session.commit()
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=commit, args=each) for each in (("a", "b", 0), ("b", "a", 100))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(written(database_url)) == 80


def test_enqueue_writes_at_once_and_says_what_became_of_it(engine: Engine, database_url: str) -> None:
    with Session(engine) as session:
        assert not enqueue(session, an_event(1)).duplicate
        assert enqueue(session, an_event(1)).duplicate
        with pytest.raises(BadInput, match="aggregate: one token"):
            enqueue(session, Event("acme", "No Subject", "1", "order.paid", {}))
        session.rollback()
    assert written(database_url) == []


def test_a_session_without_the_hook_is_told(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(BadInput, match="install"):
        record(session, an_event(1))


def test_a_sessionmaker_can_have_the_hook(engine: Engine, database_url: str) -> None:
    sessions = sessionmaker(engine)
    install(sessions)
    install(sessions)
    with sessions.begin() as session:
        record(session, an_event(1))
    assert written(database_url) == ["acme/1"]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda session: session.close(), id="close"),
        pytest.param(lambda session: session.reset(), id="reset"),
        pytest.param(lambda session: session.invalidate(), id="invalidate"),
        pytest.param(lambda session: session.get_transaction().rollback(), id="transaction"),
        pytest.param(lambda session: (session.begin_nested(), session.close()), id="close in a savepoint"),
    ],
)
def test_what_ends_a_transaction_without_commit_forgets(
    engine: Engine, database_url: str, end: Callable[[Session], object]
) -> None:
    session = OutboxSession(engine)
    session.add(Order(id=1))
    record(session, an_event(1))
    end(session)
    session.add(Order(id=2))
    record(session, an_event(2))
    session.commit()
    assert [order.id for order in session.query(Order)] == [2]
    session.close()
    assert written(database_url) == ["acme/2"]


def test_an_error_within_forgets_what_its_transaction_recorded(engine: Engine, database_url: str) -> None:
    session = OutboxSession(engine)
    with suppress(ZeroDivisionError), session.begin():
        record(session, an_event(1))
        raise ZeroDivisionError
    with suppress(DBAPIError), session.begin():
        record(session, an_event(2))
        session.execute(text("SELECT 1/0"))
    with session.begin():
        record(session, an_event(3))
    assert written(database_url) == ["acme/3"]


def test_what_hooks_record_while_the_session_commits_is_written_too(
    engine: Engine, database_url: str
) -> None:
    session = OutboxSession(engine)

    def after_flush(_session: Session, _context: object) -> None:
        record(session, an_event(1))

    def last(_session: Session) -> None:
        record(session, an_event(2))

    event.listen(session, "after_flush", after_flush)
    event.listen(session, "before_commit", last)
    session.add(Order(id=1))
    session.commit()
    event.remove(session, "after_flush", after_flush)
    event.remove(session, "before_commit", last)
    # The next transaction records as before, and not at once.
    record(session, an_event(3))
    session.rollback()
    session.close()
    assert written(database_url) == ["acme/1", "acme/2"]


def test_a_commit_after_a_refused_one_is_refused_too(engine: Engine, database_url: str) -> None:
    with OutboxSession(engine) as session:
        record(session, an_event(1))
        session.commit()
        session.add(Order(id=1))
        record(session, an_event(1, total=2))
        with pytest.raises(FingerprintConflict):
            session.commit()
        # PostgreSQL answers COMMIT of a failed transaction with ROLLBACK and no error.
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
    assert written(database_url) == ["acme/1"]


def test_scoped_sessions_as_flask_has_them(engine: Engine, database_url: str) -> None:
    scoped = scoped_session(sessionmaker(engine))
    install(scoped)
    assert record(scoped, an_event(1)) == "acme/1"
    assert not enqueue(scoped, an_event(2)).duplicate
    scoped.commit()
    record(scoped, an_event(3))
    scoped.remove()
    scoped.commit()
    scoped.remove()
    assert sorted(written(database_url)) == ["acme/1", "acme/2"]


def test_a_session_that_commits_each_statement_is_refused(engine: Engine, database_url: str) -> None:
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with OutboxSession(alone) as session:
        with pytest.raises(BadInput, match="AUTOCOMMIT"):
            enqueue(session, an_event(1))
        record(session, an_event(2))
        with pytest.raises(BadInput, match="AUTOCOMMIT"):
            session.commit()
        session.rollback()
    assert written(database_url) == []


def test_no_error_holds_what_was_to_be_written(engine: Engine) -> None:
    large = Event("acme", "order", "1", "order.paid", {"contact": "ana@example.com" * 100_000})
    with OutboxSession(engine) as session:
        for write in (lambda: enqueue(session, large), lambda: (record(session, large), session.commit())):
            with pytest.raises(BadInput, match="payload: at most 1 MiB") as refused:
                write()
            # SQLAlchemy's own error has the statement's parameters.
            assert refused.value.__cause__ is None
            assert refused.value.__context__ is None
            session.rollback()


async def test_async_sessions_forget_when_they_are_closed(database_url: str) -> None:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    scoped = async_scoped_session(
        async_sessionmaker(engine, sync_session_class=OutboxSession), scopefunc=asyncio.current_task
    )
    session = scoped()
    record(session, an_event(1))
    await session.close()
    async with session.begin():
        record(scoped, an_event(2))
    assert not (await enqueue_async(scoped, an_event(3))).duplicate
    await scoped.remove()
    await engine.dispose()
    assert written(database_url) == ["acme/2"]


async def test_async_sessions_have_the_same(database_url: str) -> None:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    async with AsyncSession(engine, sync_session_class=OutboxSession) as session:
        record(session, an_event(1))
        assert not (await enqueue_async(session, an_event(2))).duplicate
        await session.commit()
        record(session, an_event(3))
        await session.rollback()
    await engine.dispose()
    assert sorted(written(database_url)) == ["acme/1", "acme/2"]
