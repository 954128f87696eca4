"""The outbox in SQLAlchemy's transactions: written with them, gone with them, in one order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

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
