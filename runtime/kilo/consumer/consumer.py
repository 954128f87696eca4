"""A named consumer: what it is called, its handlers, and what it is run with.

Several copies may run: one works, the others stand by for its lease. Every transaction of the one that works
is fenced by the lease's epoch, so a copy that was frozen or cut off and comes back can't commit. That is
what keeps order over copies; a second active copy would still have one effect an event, by the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kilo.bus import MOST_BYTES, Bus
from kilo.consumer.event import named_schemas
from kilo.consumer.handlers import Handlers
from kilo.consumer.policy import Behind, Policy
from kilo.health import Health
from kilo.sensitive import PayloadCipher


@dataclass(frozen=True, slots=True)
class Connections:
    """What a consumer is connected to.

    Attributes:
        database_url: with the credentials of a role that may write the consumer's tables and its own.
        connect_bus: connects to the bus; called again whenever the connection is lost.
        stream: what is consumed.
        cipher: reveals the sensitive fields of payloads.
    """

    database_url: str
    connect_bus: Callable[[], Awaitable[Bus]]
    stream: str
    cipher: PayloadCipher


class Consumer(Handlers):
    """A named consumer and its handlers.

    Args:
        name: what its inbox and position go by; another name reads everything again.
        policy: for kinds that have none of their own.
        batch: events a transaction, at most; what bounds how long a transaction is.
        batch_bytes: bytes a transaction, at most; what bounds memory. No less than the largest message.
        behind: what it does when the stream no longer has messages that it has not read.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        batch: int = 500,
        batch_bytes: int = MOST_BYTES,
        *,
        behind: Behind = Behind.GO_ON,
    ) -> None:
        super().__init__(name, policy or Policy())
        self.name = name
        self.batch = batch
        self.batch_bytes = batch_bytes
        self.behind = behind

    async def run(
        self, connections: Connections, stopping: asyncio.Event, health: Health | None = None
    ) -> None:
        """Consume until ``stopping`` is set.

        A database or a bus that is away is waited for, and no error of a handler ends it.

        Raises:
            BadInput: what ``KILO_EVENT_SCHEMAS`` names can't be read; every event would be parked for that.
        """
        from kilo.consumer.runner import Runner  # noqa: PLC0415  it knows this class

        named_schemas()
        await Runner(self, connections, stopping, health or Health()).run()
