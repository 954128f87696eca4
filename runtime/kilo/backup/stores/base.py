"""What a store can do. No operation overwrites, and only pruning deletes.

A key's object is the first that was written under it. A store that lets others put versions or markers
on top (S3) reads below them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kilo.errors import Unreachable


class StoreError(Unreachable):
    """A store refused or did not answer; the message names it and the operation."""


class AlreadyExists(StoreError):
    """The key exists, and keys are written once."""


class Readable(Protocol):
    """A stream of bytes that can be read once, and knows how far it was read."""

    def read(self, size: int = -1, /) -> bytes:
        """Read ``size`` bytes; fewer only at the end. Raises whatever broke the stream."""
        ...

    def tell(self) -> int:
        """How many bytes were read."""
        ...


@dataclass(frozen=True, slots=True)
class Lock:
    """How long an object can't be deleted, as its store says. ``until`` None means not at all.

    Both times are the store's own, so that they tell the lock's length whatever the clock here says.
    """

    mode: str
    until: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of a store. ``covered`` says what somebody put on top of it, where a store allows that."""

    key: str
    size: int
    created_at: datetime
    covered: str = ""


class Store(Protocol):
    """One bucket. Every method raises :class:`StoreError`."""

    provider: str
    bucket: str

    def create(self, key: str, stream: Readable) -> Lock:
        """Write a new object from ``stream`` in bounded memory, and read its lock back.

        Nothing is left under ``key`` when the stream breaks.

        Raises:
            AlreadyExists: there is an object of that key.
        """
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Read an object in pieces; a broken connection is taken up again.

        Raises:
            KeyError: there is none.
        """
        ...

    def list(self, prefix: str) -> list[ObjectInfo]:
        """List the objects below ``prefix``, by key."""
        ...

    def lock(self, key: str) -> Lock:
        """Ask for an object's lock. Raises KeyError where there is no such object."""
        ...

    def configured_lock(self) -> tuple[str, int]:
        """The lock that new objects get by the bucket's configuration: its mode, and days."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object with all its versions.

        Raises:
            StoreError: it is locked, or we may not.
        """
        ...

    def describe(self) -> str:
        """The store as a URL, for messages."""
        ...
