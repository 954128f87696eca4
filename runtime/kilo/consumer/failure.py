"""A handler's failure, and how to tell equal ones."""

from __future__ import annotations

import hashlib
import traceback
from typing import Any

import psycopg
from psycopg import AsyncConnection

from kilo.consumer.event import Envelope


class Failure(Exception):
    """A handler did not handle ``one``: it raised ``error``.

    It is not ``sure`` that it was this one when the statements of several went out together.
    """

    def __init__(self, one: Envelope, error: Exception, *, sure: bool = True) -> None:
        super().__init__(str(error))
        self.sure = sure
        self.one = one
        self.error = error


def stack_digest(error: BaseException) -> str:
    """Twelve hexadecimal digits that are equal for failures at the same place, whatever the values were."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:12]


def is_lost(error: BaseException, connection: AsyncConnection[Any]) -> bool:
    """Whether ``error`` tells of the connection or the database, and not of what a handler did."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    # A statement that ran too long is the handler's; so is one that a pipeline left out after an error.
    own = psycopg.errors.QueryCanceled | psycopg.errors.PipelineAborted
    return connection.broken or not isinstance(error, own)
