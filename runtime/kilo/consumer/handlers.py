"""Which function handles events of which kind, and by which policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from psycopg import AsyncConnection

from kilo.consumer.event import Event
from kilo.consumer.policy import Policy
from kilo.consumer.statements import Statements
from kilo.consumer.sync import SyncConnection
from kilo.errors import BadInput

Handler = Callable[[Event, AsyncConnection[Any]], Awaitable[None]] | Callable[[Event, SyncConnection], None]
HandlerT = TypeVar("HandlerT", bound=Handler)
Writer = Callable[[Event, Statements], None]
WriterT = TypeVar("WriterT", bound=Writer)


class Handlers:
    """The handlers of the consumer ``name``; ``policy`` is for kinds that have none of their own."""

    def __init__(self, name: str, policy: Policy) -> None:
        self._consumer = name
        self._policy = policy
        self._handlers: dict[str, tuple[Handler, Policy]] = {}
        self._writers: dict[str, tuple[Writer, Policy]] = {}

    def on(self, kind: str, policy: Policy | None = None) -> Callable[[HandlerT], HandlerT]:
        """Handle events of ``kind`` with the decorated function; ``*`` for all others.

        It gets the event and the connection whose transaction its effects belong to: an async function
        psycopg's ``AsyncConnection``, a plain one a :class:`SyncConnection`. A plain one runs in a thread.
        """

        def register(handler: HandlerT) -> HandlerT:
            self._check_free(kind)
            self._handlers[kind] = handler, policy or self._policy
            return handler

        return register

    def writes(self, kind: str, policy: Policy | None = None) -> Callable[[WriterT], WriterT]:
        """Handle events of ``kind`` with the decorated plain function, which adds :class:`Statements`.

        For an effect that is writes alone: nobody waits for each statement, they are executed together
        at the end of the batch, in its transaction. The function runs on the event loop and must wait for
        nothing; the policy's time limit is for the statements.
        """

        def register(writer: WriterT) -> WriterT:
            self._check_free(kind)
            self._writers[kind] = writer, policy or self._policy
            return writer

        return register

    def handler_for(self, kind: str) -> tuple[Handler | None, Policy]:
        """The handler of ``kind`` and its policy; no handler means that the event is passed over."""
        writer = self.writer_for(kind)
        if writer is not None:
            return None, (self._writers.get(kind) or self._writers["*"])[1]
        found = self._handlers.get(kind) or self._handlers.get("*")
        return found or (None, self._policy)

    def writer_for(self, kind: str) -> Writer | None:
        """The function that gives the statements for events of ``kind``, when there is one."""
        if kind in self._handlers:
            return None
        found = self._writers.get(kind) or self._writers.get("*")
        return found[0] if found else None

    @property
    def longest_timeout_seconds(self) -> float:
        """The longest time that an attempt of any handler may take."""
        given = [policy for _, policy in (*self._handlers.values(), *self._writers.values())]
        return max(each.timeout_seconds for each in (self._policy, *given))

    def _check_free(self, kind: str) -> None:
        if kind in self._handlers or kind in self._writers:
            msg = f"consumer {self._consumer}: {kind!r} has a handler already"
            raise BadInput(msg)
