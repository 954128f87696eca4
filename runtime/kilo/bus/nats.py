"""The port on NATS JetStream.

Publishing is pipelined: all frames of a call go out in one write, and each acknowledgement comes back on a
reply subject of its own under one inbox. Messages that share subject and key with another of the same call
go as one atomic batch instead (https://github.com/nats-io/nats-architecture-and-design, ADR-50): were they
pipelined, a leader change or a full stream could refuse one and take the next.

The client's own reconnecting is off. It would hold frames back and send them after others were lost, which
turns their order round; here a lost connection is an error, and the caller starts again from what it knows.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from nats.js.errors import NotFoundError as StreamNotFound
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from kilo.address import address_of
from kilo.bus.access import Access
from kilo.bus.nats_reader import read
from kilo.bus.port import DECLARE_AGAIN, MOST_BYTES, BusError, Message, Receipt, Received
from kilo.bus.roles import inbox_prefix

_ATOMIC_LIMIT = 1000
_PIPELINE_LIMIT = 4000
"""Frames in flight. The server refuses single messages when about 10,000 wait for a stream."""

_ACKNOWLEDGED = rb'\{"stream":"[^"\\]*", ?"seq":(\d+)(?:, ?"domain":"[^"\\]*")?(, ?"duplicate": ?true)?\}'
"""The acknowledgement of a message that is stored; what else may come is read as JSON."""
_STORED = re.compile(_ACKNOWLEDGED)

_as_receipt: Callable[[tuple[int, bool, None]], Receipt] = partial(tuple.__new__, Receipt)
"""Without a call of Python's: there is one an event."""
_REFUSED_SUBJECT = re.compile(r'permissions violation for publish to "([^"]*)"')
_CLOSE_SECONDS = 5
_NO_ACKNOWLEDGEMENT = Receipt(None, error="no acknowledgement in time")


class _Parser(Parser):
    """The protocol parser, with a short way for acknowledgements.

    They are the one thing that comes once an event, and they come in rows: a whole row is taken with one
    regular expression. The parser's own way (a match, a copy and a coroutine each) costs more than all the
    rest of the worker together; what else comes, and whatever looks unusual, still goes that way.
    """

    def __init__(
        self, client: Client, prefix: bytes, stored: Callable[[list[tuple[bytes, bytes, bytes, bytes]]], None]
    ) -> None:
        super().__init__(client)
        self._prefix = b"MSG " + prefix
        self._stored = stored
        one = re.escape(self._prefix) + rb"\.(\w+)\.(\d+) \d+ \d+\r\n" + _ACKNOWLEDGED + rb"\r\n"
        self._each = re.compile(one)
        self._row = re.compile(rb"(?:%b)+" % one)

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_CONTROL_LINE:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            row = self._row.match(data)
            if row:
                self._stored(self._each.findall(data, 0, row.end()))
                data = data[row.end() :]
            if self._begins_one(data):
                self.buf.extend(data)
                return
        await super().parse(data)

    def _begins_one(self, data: bytes) -> bool:
        """Whether ``data`` is an acknowledgement cut off: it ends at the second line break."""
        known = min(len(data), len(self._prefix))
        return data[:known] == self._prefix[:known] and data.count(b"\r\n") < 2


class _Client(Client):
    """The client, which gives acknowledgements to a function instead of a queue."""

    acknowledgement_id = 0

    def __init__(self, acknowledged: Callable[[str, bytes, bytes | None], None]) -> None:
        super().__init__()
        self._acknowledged = acknowledged

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if sid == self.acknowledgement_id:
            self._acknowledged(subject.decode(), data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    def _connect_command(self) -> bytes:
        # The client would show its password to whoever says that there is no TLS here.
        server = self._current_server
        wanted = "tls" in self.options or (server is not None and server.uri.scheme == "tls")
        if wanted and not self._server_info.get("tls_required"):
            msg = "it offers no TLS, without which nothing is shown to it"
            raise NatsError(msg)
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        # asyncio warns at the end of each connection whose protocol was not told of TLS.
        if writer := getattr(self._transport, "_io_writer", None):
            writer.transport.get_protocol()._over_ssl = writer.get_extra_info("sslcontext") is not None

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # The client's own looks at every character of every name.
        lines = [line.partition(":") for line in raw.decode(errors="replace").split("\r\n")]
        return {name.strip(): value.strip() for name, colon, value in lines if colon}


class NatsBus:
    """A connection to NATS JetStream."""

    def __init__(self, inbox: str = "_INBOX") -> None:
        self._client = _Client(self._acknowledged)
        # Which connect() sets as well, too late for the inbox that the parser knows.
        self._client._inbox_prefix = bytearray(inbox.encode())  # pyright: ignore[reportPrivateUsage]
        self._inbox = self._client.new_inbox()
        # The client makes its parser itself.
        self._client._ps = _Parser(self._client, self._inbox.encode(), self._all_stored)  # pyright: ignore[reportPrivateUsage]
        self._calls = 0
        self._receipts: list[Receipt] = []
        self._subjects: Sequence[str] = ()
        self.refusal: str | None = None  # what the server said last that this user may not do
        self._missing = 0
        self._call = b""
        self._done = asyncio.Event()
        self._closed = asyncio.Event()
        self._in_use = asyncio.Lock()

    @classmethod
    async def connect(cls, url: str, name: str) -> Self:
        """See :func:`kilo.bus.connect`."""
        access = Access.from_environment()
        inbox = inbox_prefix(access.user) if access.user else "_INBOX"
        bus = cls(inbox)
        client = bus._client

        async def ended() -> None:
            bus._closed.set()
            bus._done.set()

        async def failed(error: Exception) -> None:
            bus._refused(str(error))

        try:
            await client.connect(
                servers=url.split(","),
                name=name,
                allow_reconnect=False,
                # Of the first connection: by default it is tried for two minutes.
                max_reconnect_attempts=1,
                reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType]
                connect_timeout=5,
                ping_interval=10,
                closed_cb=ended,
                disconnected_cb=ended,
                error_cb=failed,
                user=access.user,
                password=access.password,
                tls=access.tls(),
                tls_hostname=access.server_name,
                inbox_prefix=inbox,
            )
            subscription = await client.subscribe(f"{bus._inbox}.*.*")
            client.acknowledgement_id = subscription._id  # pyright: ignore[reportPrivateUsage]
        except (TimeoutError, NatsError, OSError) as error:
            await _close(client)
            raise BusError(access.refusal(address_of(url), error)) from error
        return bus

    @property
    def client(self) -> Client:
        """The client itself, for what is NATS's own: declaring streams."""
        return self._client

    async def publish(self, messages: Sequence[Message], deadline_seconds: float = 10) -> list[Receipt]:
        """See :meth:`kilo.bus.Bus.publish`."""
        keys = [(each.subject, each.key) for each in messages]
        single: Sequence[int] = range(len(messages))
        several: Sequence[int] = ()
        if len(set(keys)) < len(keys):
            shared = Counter(keys)
            single = [n for n, key in enumerate(keys) if shared[key] == 1]
            several = [n for n, key in enumerate(keys) if shared[key] > 1]
        receipts: list[Receipt] = [_NO_ACKNOWLEDGEMENT] * len(messages)
        async with self._in_use:
            for part in _parts(messages, single, _PIPELINE_LIMIT):
                got = await self._pipelined([messages[n] for n in part], deadline_seconds)
                for n, receipt in zip(part, got, strict=True):
                    receipts[n] = receipt
            failed: set[tuple[str, str]] = set()
            for given in _parts(messages, several, _ATOMIC_LIMIT):
                part = [n for n in given if keys[n] not in failed]
                got = await self._ordered([messages[n] for n in part], deadline_seconds)
                for n, receipt in zip(part, got, strict=True):
                    receipts[n] = receipt
                    if receipt.error:
                        failed.add(keys[n])
        return receipts

    async def read(
        self, stream: str, position: int, most: int = 1000, most_bytes: int = MOST_BYTES
    ) -> AsyncIterator[Sequence[Received]]:
        """See :meth:`kilo.bus.Bus.read`."""
        try:
            async for batch in read(
                self._client, self._closed, stream, position, most, most_bytes=most_bytes
            ):
                yield batch
        except BusError as error:
            if self.refusal is None:
                raise
            msg = f"reading stream {stream}: {self.refusal}"
            raise BusError(msg) from error

    async def last_position(self, stream: str) -> int:
        """See :meth:`kilo.bus.Bus.last_position`."""
        return (await self._state(stream)).last_seq

    async def first_position(self, stream: str) -> int:
        """See :meth:`kilo.bus.Bus.first_position`."""
        return (await self._state(stream)).first_seq

    async def close(self) -> None:
        """See :meth:`kilo.bus.Bus.close`."""
        await _close(self._client)

    async def _state(self, stream: str) -> Any:
        try:
            return (await self._client.jetstream().stream_info(stream)).state
        except StreamNotFound as error:
            msg = f"stream {stream} is not declared: {DECLARE_AGAIN} makes it"
            raise BusError(msg) from error
        except (TimeoutError, APIError, NatsError) as error:
            msg = f"stream {stream}: {self.refusal or error or type(error).__name__}"
            raise BusError(msg) from error

    async def _pipelined(self, messages: Sequence[Message], deadline_seconds: float) -> list[Receipt]:
        """Publish all at once; what becomes of one does not touch the others."""
        reply = self._expect([each.subject for each in messages])
        frames = [_frame(each, b"%b.%d" % (reply, n), b"") for n, each in enumerate(messages)]
        await self._send(frames, deadline_seconds)
        return self._receipts

    async def _ordered(self, messages: Sequence[Message], deadline_seconds: float) -> list[Receipt]:
        """Publish all or none; a batch with a message that the bus knows already goes one by one."""
        if len(messages) > 1:
            reply = self._expect([messages[-1].subject])
            last = len(messages)
            frames = [
                _frame(
                    each,
                    reply + b".0" if n == last else b"",
                    b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (reply[-40:], n)
                    + (b"Nats-Batch-Commit: 1\r\n" if n == last else b""),
                )
                for n, each in enumerate(messages, 1)
            ]
            await self._send(frames, deadline_seconds)
            receipt = self._receipts[0]
            if receipt.position is not None:
                first = receipt.position - last + 1
                return [Receipt(first + n) for n in range(last)]
        receipts: list[Receipt] = []
        stopped: set[tuple[str, str]] = set()
        for each in messages:
            if (each.subject, each.key) in stopped:
                receipts.append(Receipt(None, error="held behind an earlier one that failed"))
                continue
            (receipt,) = await self._pipelined([each], deadline_seconds)
            receipts.append(receipt)
            if receipt.error:
                stopped.add((each.subject, each.key))
        return receipts

    def _expect(self, subjects: Sequence[str]) -> bytes:
        """Make ready for an acknowledgement of each of ``subjects``; returns what they come under."""
        self._calls += 1
        self._call = b"%x" % self._calls
        self._receipts = [_NO_ACKNOWLEDGEMENT] * len(subjects)
        self._subjects = subjects
        self._missing = len(subjects)
        self._done.clear()
        return b"%b.%b" % (self._inbox.encode(), self._call)

    async def _send(self, frames: list[bytes], deadline_seconds: float) -> None:
        try:
            # The client's public publish() costs more an event than all the rest of the worker together.
            await self._client._send_command(b"".join(frames))  # pyright: ignore[reportPrivateUsage]
            await self._client._flush_pending()  # pyright: ignore[reportPrivateUsage]
            await asyncio.wait_for(self._done.wait(), deadline_seconds)
        except TimeoutError:
            pass
        except (NatsError, OSError) as error:
            msg = f"the bus ended the connection: {error or type(error).__name__}"
            raise BusError(msg) from error
        if self._closed.is_set() or self._client.is_closed:
            msg = "the bus ended the connection"
            raise BusError(msg)

    def _all_stored(self, acknowledgements: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
        call, receipts, missing = self._call, self._receipts, self._missing
        for of_call, number, position, duplicate in acknowledgements:
            if of_call == call:  # else too late: that call has given up on it
                index = int(number)
                if receipts[index] is _NO_ACKNOWLEDGEMENT:
                    receipts[index] = _as_receipt((int(position), bool(duplicate), None))
                    missing -= 1
        self._missing = missing
        if missing == 0:
            self._done.set()

    def _refused(self, error: str) -> None:
        """Take up the server's word that this user may not do something; it comes instead of an answer."""
        refused = _REFUSED_SUBJECT.search(error)
        if not refused:
            return
        self.refusal = f"this user may not publish to {refused[1]}"
        for index, subject in enumerate(self._subjects):
            # The client gives the server's words in lower case.
            if subject.lower() == refused[1] and self._receipts[index] is _NO_ACKNOWLEDGEMENT:
                self._receipts[index] = Receipt(None, error=self.refusal)
                self._missing -= 1
        if self._missing == 0:
            self._done.set()

    def _acknowledged(self, subject: str, data: bytes, headers: bytes | None) -> None:
        _, call, number = subject.rsplit(".", 2)
        if call.encode() != self._call:
            return
        index = int(number)
        if self._receipts[index] is _NO_ACKNOWLEDGEMENT:
            self._receipts[index] = _receipt(data, headers)
            self._missing -= 1
            if self._missing == 0:
                self._done.set()


def _parts(messages: Sequence[Message], numbers: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """``numbers`` in parts of at most ``most`` messages and about :data:`MOST_BYTES`, in order."""
    start, size = 0, 0
    for at, number in enumerate(numbers):
        of_this = len(messages[number].payload) + len(messages[number].headers)
        if at > start and (at - start >= most or size + of_this > MOST_BYTES):
            yield numbers[start:at]
            start, size = at, 0
        size += of_this
    if start < len(numbers):
        yield numbers[start:]


def _frame(message: Message, reply: bytes, extra: bytes) -> bytes:
    """An HPUB frame (https://docs.nats.io/reference/reference-protocols/nats-protocol)."""
    subject, _, headers, payload = message
    size = len(headers) + len(extra) + 12  # with "NATS/1.0\r\n" before and "\r\n" after
    return b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b%b\r\n%b\r\n" % (
        subject.encode(),
        reply,
        size,
        size + len(payload),
        headers,
        extra,
        payload,
    )


def _receipt(data: bytes, headers: bytes | None) -> Receipt:
    stored = _STORED.fullmatch(data)
    if stored:
        return Receipt(int(stored[1]), bool(stored[2]))
    if not data:
        missing = b" 503" in (headers or b"")[:16]
        return Receipt(None, error="no stream takes this subject" if missing else "an empty acknowledgement")
    answer: dict[str, Any] = json.loads(data)
    error = answer.get("error")
    if error:
        return Receipt(None, error=f"{error.get('description')} ({error.get('err_code')})")
    return Receipt(answer["seq"], duplicate=bool(answer.get("duplicate")))


async def _close(client: Client) -> None:
    try:
        # After a failed handshake the client waits for an end that never comes.
        await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
    except (TimeoutError, NatsError, OSError):
        return
