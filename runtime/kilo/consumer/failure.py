"""A handler's failure, how equal ones are told, and what of it may be kept."""

from __future__ import annotations

import hashlib
import re
import traceback
from pathlib import PurePath

import psycopg

from kilo.consumer.event import Envelope, Unreadable

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
_LIBRARIES = ("/psycopg/", "/asyncio/", "/contextlib.py")


class HandlerCancelled(Exception):
    """A handler was cancelled, or cancelled itself, although the consumer goes on."""


class TransactionEnded(Exception):
    """A handler ended the consumer's transaction, or went on after the database had refused a statement."""


class ConnectionLost(Exception):
    """The connection to the database ended each time that this event was handled."""


class Failure(Exception):
    """A handler did not handle ``one``: it raised ``error``.

    It is not ``sure`` that it was this one when the statements of several went out together.
    """

    def __init__(self, one: Envelope, error: BaseException, *, sure: bool = True) -> None:
        super().__init__(describe(error))
        self.sure = sure
        self.one = one
        self.error = error


def describe(error: BaseException) -> str:
    """What is kept and logged of ``error``: class, SQLSTATE, what it is about, and the place.

    Never its message, which may quote decrypted values: drivers do. Messages of :class:`Unreadable` are made
    here and name headers and JSON pointers alone.
    """
    if isinstance(error, Unreadable):
        return f"Unreadable: {error}"[:500]
    words = [type(error).__name__]
    if isinstance(error, psycopg.Error):
        if error.sqlstate:
            words.append(f"(SQLSTATE {error.sqlstate})")
        # The server says these; anything but a plain identifier might be made of a value.
        diagnostic = error.diag
        for name in ("table_name", "column_name", "constraint_name"):
            value = getattr(diagnostic, name)
            if value and _IDENTIFIER.fullmatch(value):
                words.append(f"{name.removesuffix('_name')} {value}")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in _LIBRARIES)
    ]
    if frames:
        words.append(f"at {PurePath(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}")
    return " ".join(words)


def stack_digest(error: BaseException) -> str:
    """Twelve hexadecimal digits that are equal for failures at the same place, whatever the values were."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:12]
