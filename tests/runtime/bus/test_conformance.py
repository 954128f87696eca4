"""What every bus must do, whichever it is: NATS JetStream and Kafka, each a real server."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from kilo.bus import BusError, Message, connect, encode_headers
from kilo.errors import BadInput
from kilo.testing.servers.nats import NatsServer
from tests.events import declare
from tests.runtime.conftest import BusServer, declared

_numbers = itertools.count(1)


@pytest.fixture(params=["nats", "kafka"])
async def any_bus(request: pytest.FixtureRequest) -> BusServer:
    if request.param == "nats":
        return await declared(request.getfixturevalue("own_nats"))
    return await declared(request.getfixturevalue("kafka").server, topic=f"plain{next(_numbers)}")


def a_message(bus: BusServer, n: int, key: str | None = None) -> Message:
    headers = {"Nats-Msg-Id": f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}", "ce-id": f"a/{n}%25"}
    subject = f"{bus.outputs.bus.subject_prefix}.order"
    return Message(subject, key or str(n), encode_headers(headers), b'{"n": %d}' % n)


async def test_what_is_published_is_read_in_order_with_its_headers(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    receipts = await client.publish([a_message(any_bus, n) for n in range(5000)])
    assert [receipt.position for receipt in receipts] == list(range(1, 5001))
    await client.close()
    found = await any_bus.all()
    assert [each.payload for each in found] == [b'{"n": %d}' % n for n in range(5000)]
    assert [each.position for each in found] == list(range(1, 5001))
    assert dict(found[7].headers) == {
        "Nats-Msg-Id": "m7",
        "kind": "order.paid",
        "fingerprint": "f7",
        "ce-id": "a/7%25",
    }
    assert found[7].subject == f"{any_bus.outputs.bus.subject_prefix}.order"


async def test_messages_of_one_key_keep_their_order(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    await client.publish([a_message(any_bus, n, "a") for n in (3, 4)])
    await client.publish([a_message(any_bus, n, "ab"[n % 2]) for n in range(10, 2510)])
    await client.close()
    found = [int(each.headers["fingerprint"][1:]) for each in await any_bus.all()]
    assert [n for n in found if n % 2 == 0] == [4, *range(10, 2510, 2)]
    assert [n for n in found if n % 2] == [3, *range(11, 2510, 2)]


async def test_what_no_stream_takes_is_an_error_of_that_message_alone(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    good, bad = a_message(any_bus, 1), a_message(any_bus, 2)._replace(subject="nowhere.order")
    receipts = await client.publish([good, bad])
    assert receipts[0].position == 1
    assert receipts[1].position is None
    assert receipts[1].error == "no stream takes this subject"
    await client.close()


async def test_after_a_failure_nothing_of_the_same_key_is_stored(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    payload = b"x" * 3_000_000
    if isinstance(any_bus.server, NatsServer):
        payload = b"x" * 1_900_000
        jetstream = client.client.jetstream()  # pyright: ignore[reportAttributeAccessIssue]
        info = await jetstream.stream_info("EVENTS")
        info.config.max_msg_size = 1000
        await jetstream.update_stream(info.config)
    large = a_message(any_bus, 1, "a")._replace(payload=payload)
    others = [a_message(any_bus, n, key) for n, key in ((2, "a"), (3, "a"), (4, "b"))]
    receipts = await client.publish([large, *others])
    assert [receipt.position is None for receipt in receipts] == [True, True, True, False]
    await client.close()
    assert [each.headers["fingerprint"] for each in await any_bus.all()] == ["f4"]


async def test_reading_starts_after_a_position_and_reports_quiet(any_bus: BusServer) -> None:
    client, stream = await any_bus.connect(), any_bus.outputs.bus.stream
    await client.publish([a_message(any_bus, n) for n in range(10)])
    reading = client.read(stream, 7)
    found = []
    while len(found) < 3:
        found += await anext(reading)  # pyright: ignore[reportArgumentType]
    assert [each.position for each in found] == [8, 9, 10]
    assert not await anext(reading)  # pyright: ignore[reportArgumentType]
    assert (await client.first_position(stream), await client.last_position(stream)) == (1, 10)
    await client.close()


async def test_a_reader_behind_the_newest_gets_at_most_what_it_asked_for(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    await client.publish([a_message(any_bus, n) for n in range(100)])
    reading = client.read(any_bus.outputs.bus.stream, 0, 7)
    sizes: list[int] = []
    while sum(sizes) < 100:
        sizes.append(len(await anext(reading)))  # pyright: ignore[reportArgumentType]
    assert max(sizes) <= 7
    await client.close()


async def test_what_was_stored_has_the_time_at_which_it_was(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    await client.publish([a_message(any_bus, 1)])
    await asyncio.sleep(0.2)
    await client.publish([a_message(any_bus, 2)])
    await client.close()
    first, second = [each.stored_at for each in await any_bus.all()]
    assert 0.15 < second - first < 60
    assert [each.stored_at for each in await any_bus.all()] == [first, second]


async def test_a_bus_that_is_killed_is_an_error_and_comes_back_with_what_it_acknowledged(
    any_bus: BusServer,
) -> None:
    client = await any_bus.connect()
    await client.publish([a_message(any_bus, n) for n in range(100)])
    any_bus.server.kill()
    with pytest.raises(BusError):
        await client.publish([a_message(any_bus, 100)], 2)
    any_bus.server.start()
    assert [each.headers["fingerprint"] for each in await any_bus.all()] == [f"f{n}" for n in range(100)]
    other = await any_bus.connect()
    assert (await other.publish([a_message(any_bus, 100)]))[0].position == 101
    await client.close()
    await other.close()


async def test_a_stream_that_is_not_declared_is_named(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    with pytest.raises(BusError, match="stream NONE is not declared"):
        await client.last_position("NONE")
    await client.close()


async def test_declaring_again_changes_nothing(any_bus: BusServer) -> None:
    client = await any_bus.connect()
    await client.publish([a_message(any_bus, 1)])
    await client.close()
    assert {what for _, what in await declare(any_bus.server.url, any_bus.outputs)} == {"up to date"}
    assert len(await any_bus.all()) == 1


@pytest.mark.parametrize("url", ["nats://someone:secret@127.0.0.1:1", "kafka://127.0.0.1:1"])
async def test_a_bus_that_is_away_is_named_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.bus.kafka._ANSWER_SECONDS", 1.0)
    with pytest.raises(BusError, match=r"127\.0\.0\.1:1 does not answer") as caught:
        await connect(url)
    assert "secret" not in str(caught.value)


async def test_an_unknown_scheme_is_named_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="nats://, tls:// or kafka://"):
        await connect("amqp://localhost")
