"""A handler's failure: how it is told from a lost database, and what of it may be stored.

What a driver or a library says of an error can quote the values it was given, decrypted ones too. So what is
stored, and lies in every backup, is the class, the SQLSTATE with the names of table and constraint, and the
place in the code; never the message. The reason of a :class:`~kilo.consumer.policy.Park` is the handler's own
words, and is kept without the values of encrypted fields.
"""

from __future__ import annotations

import asyncio
import hashlib
import sysconfig
import traceback
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.consumer.event import Envelope, Unreadable
from kilo.consumer.policy import Park

_DESCRIPTION_CHARACTERS = 500
_LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
# Values this short would be found in every word.
_SHORTEST_VALUE = 3


class Failure(Exception):
    """A handler did not handle ``one``: it raised ``error``.

    It is not ``sure`` that it was this one when the statements of several went out together. ``secrets`` are
    the event's decrypted values.
    """

    def __init__(
        self, one: Envelope, error: BaseException, *, sure: bool = True, secrets: Iterable[str] = ()
    ) -> None:
        super().__init__(type(error).__name__)
        self.sure = sure
        self.one = one
        self.error = error
        self.description = describe(error, secrets)


class HandlerEndedTransaction(Exception):
    """A handler ended the transaction it was given, or went on after an error that had aborted it."""


class DatabaseLost(Exception):
    """Each time this event was handled, the database ended the connection."""


def describe(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """What may be stored of ``error``: its class, what the database says without values, and its place."""
    said = type(error).__name__
    if isinstance(error, psycopg.Error) and error.sqlstate:
        diagnostic = error.diag
        named = {
            "table": diagnostic.table_name,
            "column": diagnostic.column_name,
            "constraint": diagnostic.constraint_name,
        }
        words = [f"SQLSTATE {error.sqlstate}", *(f"{name} {value}" for name, value in named.items() if value)]
        said += f" ({', '.join(words)})"
    if isinstance(error, Park | Unreadable) and str(error):
        said += f": {_without(str(error), secrets)}"
    if (place := _place(error)) is not None and not isinstance(error, Unreadable):
        said += f" at {place}"
    return said[:_DESCRIPTION_CHARACTERS]


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_VALUE:
            text = text.replace(secret, "…")
    return text


def _place(error: BaseException) -> str | None:
    """Where it was raised, or where a library was called that raised it: file, line and function."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
    if not own:
        return None
    frame = own[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno} in {frame.name}"


def stack_digest(error: BaseException) -> str:
    """Twelve hexadecimal digits that are equal for failures at the same place, whatever the values were."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:12]


def is_lost(connection: AsyncConnection[Any]) -> bool:
    """Whether the consumer's own connection has ended; what a handler raised says nothing about that.

    Errors of every class can come from a handler: of another database, of a closed cursor, of a row that is
    too long for an index. Only the connection that holds the inbox row tells whether it can still be used.
    """
    return connection.closed


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` means that the consumer itself is to end, whatever handlers raise by themselves."""
    if isinstance(error, KeyboardInterrupt):
        return True
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
