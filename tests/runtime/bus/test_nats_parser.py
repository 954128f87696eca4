"""Acknowledgements come in rows and may be cut off anywhere: none is lost, doubled or taken for another."""

from __future__ import annotations

from typing import Any

import pytest

from kilo.bus.nats import _Parser  # pyright: ignore[reportPrivateUsage]

INBOX = b"_INBOX.abc"


def message(subject: bytes, sid: int, payload: bytes) -> bytes:
    return b"MSG %b %d %d\r\n%b\r\n" % (subject, sid, len(payload), payload)


def acknowledgement(number: int, position: int, duplicate: bytes = b"") -> bytes:
    payload = b'{"stream":"EVENTS", "seq":%d%b}' % (position, duplicate)
    return message(b"%b.1f.%d" % (INBOX, number), 7, payload)


STREAM = b"".join(
    [
        acknowledgement(0, 41),
        acknowledgement(1, 42, b',"duplicate": true'),
        b"PING\r\n",
        acknowledgement(2, 43),
        message(INBOX + b".1f.3", 7, b'{"error":{"code":503},"stream":"EVENTS","seq":0}'),
        # What another subscription gets may look like anything.
        message(b"other", 9, acknowledgement(5, 99)),
        b"+OK\r\n",
        acknowledgement(4, 44, b',"domain":"hub"'),
    ]
)


class Client:
    """What the parser calls for everything that is not one of a row of acknowledgements."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def _process_msg(
        self, sid: int, subject: bytes, _reply: bytes, data: bytes, _headers: object
    ) -> None:
        self.got.append((sid, subject, data))

    async def _process_ping(self) -> None:
        self.got.append("ping")


async def feed(*chunks: bytes) -> tuple[list[tuple[bytes, ...]], list[Any]]:
    """What was taken as stored in rows, and what went the usual way."""
    client, stored = Client(), list[tuple[bytes, ...]]()
    parser = _Parser(client, INBOX, stored.extend)  # pyright: ignore[reportArgumentType]
    for chunk in chunks:
        await parser.parse(chunk)
    assert not parser.buf
    return stored, client.got


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 64, 200, len(STREAM)])
async def test_nothing_is_lost_or_mistaken_wherever_the_stream_is_cut(size: int) -> None:
    stored, other = await feed(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))
    # One that follows something else in its chunk goes the usual way.
    usual = [each[1].rpartition(b".")[2] for each in other if each != "ping" and each[0] == 7]
    assert sorted([each[1] for each in stored] + usual) == [b"0", b"1", b"2", b"3", b"4"]
    assert b"3" in usual
    assert (b"1f", b"0", b"41", b"") in stored
    assert "ping" in other
    assert (9, b"other", acknowledgement(5, 99)) in other


async def test_every_cut_of_a_row_gives_the_whole_row() -> None:
    row = acknowledgement(0, 41) + acknowledgement(1, 42, b',"duplicate": true') + acknowledgement(2, 43)
    expected = [
        (b"1f", b"0", b"41", b""),
        (b"1f", b"1", b"42", b',"duplicate": true'),
        (b"1f", b"2", b"43", b""),
    ]
    for at in range(len(row)):
        assert await feed(row[:at], row[at:]) == (expected, [])


async def test_a_refusal_is_not_held_back() -> None:
    refusal = b'{"error":{"code":400}}'
    assert await feed(message(INBOX + b".1f.0", 7, refusal)) == ([], [(7, INBOX + b".1f.0", refusal)])
