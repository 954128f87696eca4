"""What every bus must do, whichever it is."""

from __future__ import annotations

import pytest

from runtime.bus import BusError, Message, connect, encode_headers
from runtime.errors import BadInput
from tests.runtime.conftest import BusServer


def a_message(n: int, key: str | None = None, message_id: str | None = None) -> Message:
    headers = {"Nats-Msg-Id": message_id or f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}"}
    return Message("events.order", key or str(n), encode_headers(headers), b'{"n": %d}' % n)


async def test_what_is_published_is_read_in_order_with_its_headers(bus: BusServer) -> None:
    client = await bus.connect()
    receipts = await client.publish([a_message(n) for n in range(5000)])
    assert [receipt.position for receipt in receipts] == list(range(1, 5001))
    await client.close()
    found = await bus.all()
    assert [each.payload for each in found] == [b'{"n": %d}' % n for n in range(5000)]
    assert dict(found[7].headers) == {"Nats-Msg-Id": "m7", "kind": "order.paid", "fingerprint": "f7"}


async def test_a_known_message_id_is_a_duplicate_and_stored_once(bus: BusServer) -> None:
    client = await bus.connect()
    await client.publish([a_message(1)])
    (again,) = await client.publish([a_message(1)])
    assert (again.position, again.duplicate) == (1, True)
    await client.close()
    assert len(await bus.all()) == 1


async def test_messages_of_one_key_keep_their_order_with_duplicates_among_them(bus: BusServer) -> None:
    client = await bus.connect()
    await client.publish([a_message(n, "a") for n in (3, 4)])
    receipts = await client.publish([a_message(n, "a") for n in (3, 4, 5, 6)])
    assert [receipt.duplicate for receipt in receipts] == [True, True, False, False]
    await client.publish([a_message(n, "b") for n in range(10, 2510)])
    await client.close()
    found = [int(each.headers["fingerprint"][1:]) for each in await bus.all()]
    assert found == [3, 4, 5, 6, *range(10, 2510)]


async def test_what_no_stream_takes_is_an_error_of_that_message_alone(bus: BusServer) -> None:
    client = await bus.connect()
    good, bad = a_message(1), a_message(2)._replace(subject="nowhere.order")
    receipts = await client.publish([good, bad])
    assert receipts[0].position == 1
    assert receipts[1].position is None
    assert receipts[1].error == "no stream takes this subject"
    await client.close()


async def test_after_a_failure_nothing_of_the_same_key_is_stored(bus: BusServer) -> None:
    client = await bus.connect()
    large = a_message(1, "a")._replace(payload=b"x" * 1_900_000)
    jetstream = client.client.jetstream()  # pyright: ignore[reportAttributeAccessIssue]
    info = await jetstream.stream_info("EVENTS")
    info.config.max_msg_size = 1000
    await jetstream.update_stream(info.config)
    receipts = await client.publish([large, a_message(2, "a"), a_message(3, "a"), a_message(4, "b")])
    assert [receipt.position is None for receipt in receipts] == [True, True, True, False]
    await client.close()
    assert [each.headers["fingerprint"] for each in await bus.all()] == ["f4"]


async def test_reading_starts_after_a_position_and_reports_quiet(bus: BusServer) -> None:
    client = await bus.connect()
    await client.publish([a_message(n) for n in range(10)])
    reading = client.read("EVENTS", 7)
    assert [each.position for each in await anext(reading)] == [8, 9, 10]  # pyright: ignore[reportArgumentType]
    assert not await anext(reading)  # pyright: ignore[reportArgumentType]
    assert (await client.first_position("EVENTS"), await client.last_position("EVENTS")) == (1, 10)
    await client.close()


async def test_a_bus_that_is_killed_is_an_error_and_comes_back_with_what_it_acknowledged(
    bus: BusServer,
) -> None:
    client = await bus.connect()
    await client.publish([a_message(n) for n in range(100)])
    bus.server.kill()
    with pytest.raises(BusError):
        await client.publish([a_message(100)])
    with pytest.raises(BusError):
        await connect(bus.server.url)
    bus.server.start()
    assert len(await bus.all()) == 100


async def test_a_stream_that_is_not_declared_is_named(bus: BusServer) -> None:
    client = await bus.connect()
    with pytest.raises(BusError, match="stream NONE is not declared"):
        await client.last_position("NONE")
    await client.close()


async def test_a_password_is_in_no_error() -> None:
    with pytest.raises(BusError) as caught:
        await connect("nats://someone:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


async def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="nats://, tls:// or kafka://"):
        await connect("amqp://localhost")
