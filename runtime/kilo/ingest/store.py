"""Stores checked events: business row and outbox row in one transaction, sensitive fields encrypted.

Many events of one tenant go into one transaction. Where one of them keeps the others from it (a key of
another content, a lock that somebody else holds), they are told apart and the rest is stored all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from kilo.fle import FieldError
from kilo.ingest.limits import AGAIN, TRANSACTION_EVENTS
from kilo.ingest.request import KEY_HEADER, IncomingEvent
from kilo.ingest.rows import Row, insert, is_stored, known_digests, row_of
from kilo.sensitive import PayloadCipher
from kilo.web.problem import Problem, refused

_log = logging.getLogger(__name__)

Result = bool | Problem
"""What became of an event: new, known with the same content, or not stored and why."""

_ATTEMPTS = 4
_TENANT_CONNECTIONS = 4
"""That one tenant's requests may take of the pool: what waits for its locks keeps no other tenant waiting."""
_LARGE_ROWS = 32
_LARGE_AT_ONCE = 4
"""Transactions of more rows than that, of all tenants: each ordering key holds a lock until the commit,
and the server's table of locks is everybody's (``max_locks_per_transaction``, by default 6,400 in all)."""
_REUSED = "outbox_fingerprint_content"
# Somebody else's moment: their outcome is known when they are through.
_PASSING = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
)
# Of one row, or of their number.
_NOT_STORABLE = (psycopg.DataError, psycopg.errors.CheckViolation, psycopg.errors.ProgramLimitExceeded)
_SEPARABLE = (psycopg.errors.LockNotAvailable, psycopg.errors.OutOfMemory, *_NOT_STORABLE)
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class EventStore:
    """Stores events through ``pool``, which connects as the ingest role, in autocommit mode."""

    def __init__(self, pool: AsyncConnectionPool[Any], cipher: PayloadCipher) -> None:
        self._pool = pool
        self._cipher = cipher
        self._gates: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_TENANT_CONNECTIONS)
        )
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def row_of(self, event: IncomingEvent, traceparent: str) -> Row:
        """The rows of ``event``, with what is sensitive encrypted.

        Raises:
            Problem: the tenant's key can't be used now.
        """
        try:
            return await row_of(self._cipher, event, traceparent)
        except FieldError as error:
            _log.warning("%s", error)
            msg = "the tenant's encryption key can't be used now; try again with the same key"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN) from None

    async def store_each(self, rows: Sequence[Row]) -> list[Result]:
        """Store one tenant's events, each by itself; what is said to be stored is committed.

        Events of one ordering key are stored in the order given, and none behind one that may be tried
        again. The results are in the order of ``rows``.
        """
        found: dict[int, Result] = {}
        held: set[tuple[str, str, str]] = set()
        for numbers in _rounds(rows):
            for start in range(0, len(numbers), TRANSACTION_EVENTS):
                some = numbers[start : start + TRANSACTION_EVENTS]
                for part, results in await self._narrowed(rows, some, held):
                    found.update(zip(part, results, strict=True))
        return [found[number] for number in range(len(rows))]

    async def store_all(self, rows: Sequence[Row]) -> list[Result]:
        """Store one tenant's events in one transaction, or none; with a problem in the results, none is.

        There are at most :data:`kilo.ingest.limits.TRANSACTION_EVENTS`.
        """
        known: dict[int, Result] = {}
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection(rows[0].tenant, len(rows)) as connection:
                    return await self._all(connection, rows, known)
            except _Rollback as rollback:
                return _only(rows, rollback.problems)
            except (*_SEPARABLE, FieldError) as error:
                return _only(rows, dict.fromkeys(range(len(rows)), _unavailable(error)))
            except psycopg.IntegrityError as error:
                if error.diag.constraint_name == _REUSED:
                    known |= await self._reused(rows, known)
                    problems = {n: each for n, each in known.items() if isinstance(each, Problem)}
                    if problems:
                        return _only(rows, problems)
                await _pause(attempt, error)
            except _PASSING as error:
                await _pause(attempt, error)
            except _AWAY as error:
                return _only(rows, dict.fromkeys(range(len(rows)), _unavailable(error)))
        return _only(rows, dict.fromkeys(range(len(rows)), _contended()))

    async def is_stored(self, event: IncomingEvent) -> bool:
        """Whether this very event is stored, whatever the configuration says of it by now.

        Raises:
            Problem: nobody can say now.
        """
        try:
            async with self._connection(event.tenant) as connection:
                return bool(await is_stored(connection, self._cipher, event))
        except (FieldError, *_AWAY):
            raise _incomparable() from None

    async def _all(
        self, connection: AsyncConnection[Any], rows: Sequence[Row], known: dict[int, Result]
    ) -> list[Result]:
        if repeated := {number: _twice() for each in _rounds(rows)[1:] for number in each}:
            raise _Rollback(repeated)
        open_numbers = [number for number in range(len(rows)) if number not in known]
        async with connection.transaction():
            new = await insert(connection, [rows[n] for n in open_numbers]) if open_numbers else set[str]()
            results: dict[int, Result] = {n: rows[n].fingerprint in new for n in open_numbers}
            for number, is_new in results.items():
                if not is_new and rows[number].plain is not None:
                    same = await is_stored(connection, self._cipher, rows[number])
                    if same is False:
                        raise _Rollback({number: _reused()})
        results |= known
        return [results[number] for number in range(len(rows))]

    async def _narrowed(
        self, rows: Sequence[Row], numbers: Sequence[int], held: set[tuple[str, str, str]]
    ) -> list[tuple[list[int], list[Result]]]:
        """Store the rows of these numbers; on a failure that is some row's own, by halves."""
        behind = [number for number in numbers if rows[number].ordering_key in held]
        numbers = [number for number in numbers if rows[number].ordering_key not in held]
        done: list[tuple[list[int], list[Result]]] = [(behind, [_held_behind()] * len(behind))]
        if not numbers:
            return done
        results: list[Result] = []
        try:
            results = await self._write([rows[number] for number in numbers])
        except _SEPARABLE as error:
            if len(numbers) == 1:
                results = [_unavailable(error)]
        if results:
            held.update(
                rows[number].ordering_key
                for number, result in zip(numbers, results, strict=True)
                if isinstance(result, Problem) and result.status == HTTPStatus.SERVICE_UNAVAILABLE
            )
            return [*done, (numbers, results)]
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            done += await self._narrowed(rows, half, held)
        return done

    async def _write(self, rows: Sequence[Row]) -> list[Result]:
        known: dict[int, Result] = {}
        for attempt in range(_ATTEMPTS):
            open_numbers = [number for number in range(len(rows)) if number not in known]
            try:
                if open_numbers:
                    async with self._connection(rows[0].tenant, len(rows)) as connection:
                        new = await insert(connection, [rows[number] for number in open_numbers])
                    known |= {number: rows[number].fingerprint in new for number in open_numbers}
            except _SEPARABLE:
                raise
            except psycopg.IntegrityError as error:
                if error.diag.constraint_name == _REUSED:
                    known |= await self._reused(rows, known)
                elif not isinstance(error, _PASSING):
                    raise
                await _pause(attempt, error)
            except _PASSING as error:
                await _pause(attempt, error)
            except _AWAY as error:
                return [known.get(number, _unavailable(error)) for number in range(len(rows))]
            else:
                return [await self._compared(row, known[number]) for number, row in enumerate(rows)]
        return [known.get(number, _contended()) for number in range(len(rows))]

    async def _reused(self, rows: Sequence[Row], known: dict[int, Result]) -> dict[int, Result]:
        """Of the rows whose key has another digest: which are the same event all the same.

        The digest leaves out what was sensitive when it was made, so the stored content decides.
        """
        found: dict[int, Result] = {}
        try:
            async with self._connection(rows[0].tenant) as connection:
                digests = await known_digests(connection, rows)
                for number, row in enumerate(rows):
                    if number in known or digests.get(row.fingerprint, row.digest) == row.digest:
                        continue
                    same = await is_stored(connection, self._cipher, row)
                    found[number] = False if same else _reused()
        except (FieldError, *_AWAY):
            return {
                number: found.get(number, _incomparable())
                for number in range(len(rows))
                if number not in known
            }
        return found

    async def _compared(self, row: Row, result: Result) -> Result:
        """The sensitive part is compared too, which equal digests leave out."""
        if result is not False or row.plain is None:
            return result
        try:
            async with self._connection(row.tenant) as connection:
                same = await is_stored(connection, self._cipher, row)
        except (FieldError, *_AWAY):
            return _incomparable()
        return _reused() if same is False else result

    @asynccontextmanager
    async def _connection(self, tenant: str, rows: int = 1) -> AsyncGenerator[AsyncConnection[Any]]:
        shared = self._large if rows > _LARGE_ROWS else nullcontext()
        async with self._gates[tenant], shared, self._pool.connection() as connection:
            yield connection


class _Rollback(Exception):
    """Ends a transaction in which some events can't be stored."""

    def __init__(self, problems: dict[int, Problem]) -> None:
        super().__init__()
        self.problems = problems


def _rounds(rows: Sequence[Row]) -> list[list[int]]:
    """Numbers of rows such that no key occurs twice in one round: a statement can't meet its own row."""
    rounds: list[list[int]] = []
    occurred: dict[str, int] = {}
    for number, row in enumerate(rows):
        turn = occurred.get(row.fingerprint, 0)
        occurred[row.fingerprint] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(number)
    return rounds


def _only(rows: Sequence[Row], problems: dict[int, Problem]) -> list[Result]:
    """None is stored: these by their own fault, the others since those aren't."""
    other = Problem(HTTPStatus.FAILED_DEPENDENCY, "another event of the request could not be stored")
    return [problems.get(number, other) for number in range(len(rows))]


async def _pause(attempt: int, error: psycopg.Error) -> None:
    # The class only: the database's message can hold the row.
    _log.info("storing again, attempt %d: %s", attempt + 2, type(error).__name__)
    await asyncio.sleep(0.01 * attempt)


def _reused() -> Problem:
    return refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        {"header": KEY_HEADER, "detail": "was used for another event; give each event a key of its own"},
    )


def _twice() -> Problem:
    detail = "the request has this key twice; give each event a key of its own"
    return refused(HTTPStatus.UNPROCESSABLE_ENTITY, {"header": KEY_HEADER, "detail": detail})


def _unavailable(error: Exception) -> Problem:
    msg = "the database does not answer; nothing is known to be stored, try again with the same key"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        msg = (
            "a lock was not to be had in time, as when another transaction writes this aggregate and id;"
            " not stored, try again with the same key"
        )
    elif isinstance(error, FieldError):
        return _incomparable()
    elif isinstance(error, _NOT_STORABLE):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the payload holds a value that can't be stored")
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN)


def _contended() -> Problem:
    msg = "others write the same keys or aggregates; not stored, try again with the same key"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN)


def _held_behind() -> Problem:
    msg = "held behind an earlier event of its aggregate and id; not stored, try again with the same key"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN)


def _incomparable() -> Problem:
    msg = "the key is known, but its event can't be compared now; try again"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, msg, headers=AGAIN)
