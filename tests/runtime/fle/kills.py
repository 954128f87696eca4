"""Processes that are gone at a statement."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest


class Killed(BaseException):
    """The process is gone at this statement; its transaction with it."""


@contextmanager
def killed_at(statement: int) -> Generator[None]:
    """Kill whoever executes that many further statements; 0 kills nobody."""
    numbers, execute = itertools.count(1), psycopg.Connection.execute

    def count(self: psycopg.Connection[Any], *args: Any, **kwargs: Any) -> Any:
        if next(numbers) == statement:
            raise Killed
        return execute(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", count)
        yield
