"""What only NATS JetStream does: it knows message ids for its duplicate window."""

from __future__ import annotations

from kilo.bus import Message, encode_headers
from tests.runtime.conftest import BusServer


def a_message(n: int, key: str) -> Message:
    headers = {"Nats-Msg-Id": f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}"}
    return Message("events.order", key, encode_headers(headers), b'{"n": %d}' % n)


async def test_a_known_message_id_is_a_duplicate_and_stored_once(bus: BusServer) -> None:
    client = await bus.connect()
    await client.publish([a_message(1, "a")])
    (again,) = await client.publish([a_message(1, "a")])
    assert (again.position, again.duplicate) == (1, True)
    await client.close()
    assert len(await bus.all()) == 1


async def test_messages_of_one_key_keep_their_order_with_duplicates_among_them(bus: BusServer) -> None:
    client = await bus.connect()
    await client.publish([a_message(n, "a") for n in (3, 4)])
    receipts = await client.publish([a_message(n, "a") for n in (3, 4, 5, 6)])
    assert [receipt.duplicate for receipt in receipts] == [True, True, False, False]
    await client.close()
    assert [each.headers["fingerprint"] for each in await bus.all()] == ["f3", "f4", "f5", "f6"]
