"""One effect an event, in order per aggregate, whatever is delivered and whatever handlers do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest
from prometheus_client import REGISTRY

from kilo.consumer import Event, Park, Policy, Statements, SyncConnection
from kilo.context import NoTenant, current_tenant, current_traceparent
from kilo.errors import BadInput
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import HANGS, QUICK, a_message, make

COUNT = "SELECT count(*) FROM effects"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_each_event_has_one_effect_however_often_it_is_delivered(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(n, str(n % 5)) for n in range(100)])
    await one.publish([a_message(n, str(n % 5), message_id=f"again/{n}") for n in range(100)])
    async with one.running():
        await one.until("SELECT count(*), sum(duplicates) FROM inbox", [(100, 100)])
    assert sorted(one.effects()) == list(range(100))
    for aggregate_id in "01234":
        assert one.effects(aggregate_id) == sorted(one.effects(aggregate_id))


async def test_a_handler_gets_the_event_as_it_was_written(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    payload = '{"big": 123456789012345678901234567890, "text": "ä🚚", "a": {"b": [null, true]}}'.encode()
    await one.publish([a_message(1, payload=payload)])
    async with one.running():
        await one.until(COUNT, [(1,)])
    (event,) = one.seen
    assert event.payload == {"big": 123456789012345678901234567890, "text": "ä🚚", "a": {"b": [None, True]}}
    assert (event.tenant, event.aggregate, event.kind) == ("acme", "order", "order.paid")


async def test_two_consumers_at_once_have_one_effect_an_event_in_order(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus, batch=20)
    one.handle_with_effects()
    async with one.running(copies=3):
        for start in range(0, 300, 50):
            await one.publish([a_message(n, str(n % 3)) for n in range(start, start + 50)])
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                    " datname = current_database() AND application_name LIKE 'kilo-consumer%' LIMIT 1"
                )
        await one.until(COUNT, [(300,)])
    for aggregate_id in "012":
        assert one.effects(aggregate_id) == sorted(one.effects(aggregate_id))


async def test_a_failed_attempt_leaves_nothing_and_is_tried_again(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[5] = RuntimeError("not now")
    await one.publish([a_message(n, str(n % 2)) for n in range(10)])
    async with one.running():
        await one.until(
            "SELECT state, attempts FROM dead_letters WHERE fingerprint = 'acme/5'", [("retrying", 2)]
        )
        one.fail.clear()
        await one.until(COUNT, [(10,)])
    assert one.effects("0") == [0, 2, 4, 6, 8]
    assert one.effects("1") == [1, 3, 5, 7, 9]


async def test_what_fails_for_good_is_parked_with_all_that_is_known(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = RuntimeError("never")
    await one.publish([a_message(1, "a"), a_message(2, "a"), a_message(3, "b"), a_message(4, "a")])
    async with one.running():
        await one.until(
            "SELECT fingerprint, state, attempts, split_part(error, ' ', 1) FROM dead_letters ORDER BY id",
            [
                ("acme/1", "parked", 3, "RuntimeError"),
                ("acme/2", "waiting", 0, ""),
                ("acme/4", "waiting", 0, ""),
            ],
        )
    assert one.effects() == [3]
    row = one.sql(
        "SELECT payload, headers->>'kind', stack_digest <> '', last_at >= first_at FROM dead_letters"
        " WHERE state = 'parked'"
    )[0]
    assert row == (b'{"n": 1}', "order.paid", True, True)


async def test_a_policy_can_let_later_events_pass(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects(policy=Policy(attempts=1, holds_aggregate=False))
    one.fail[1] = RuntimeError("never")
    await one.publish([a_message(n, "a") for n in (1, 2, 3)])
    async with one.running():
        await one.until("SELECT n FROM effects ORDER BY serial", [(2,), (3,)])
        await one.until("SELECT state FROM dead_letters", [("parked",)])


async def test_later_events_pass_one_that_is_parked_after_several_attempts(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects(policy=replace(QUICK, holds_aggregate=False))
    one.fail[1] = RuntimeError("never")
    await one.publish([a_message(n, "a") for n in (1, 2)])
    parked = counted("dead_letters_total", kind="order.paid", tenant="acme")
    async with one.running():
        await one.until(
            "SELECT state, attempts FROM dead_letters WHERE fingerprint = 'acme/1'", [("parked", 3)]
        )
        await one.until("SELECT n FROM effects ORDER BY serial", [(2,)])
        await one.publish([a_message(3, "a")])
        await one.until("SELECT n FROM effects ORDER BY serial", [(2,), (3,)])
    assert counted("dead_letters_total", kind="order.paid", tenant="acme") == parked + 1


@pytest.mark.parametrize("error", [Park("no such customer"), psycopg.errors.CheckViolation("no")])
async def test_what_can_never_work_parks_at_once(database_url: str, bus: BusServer, error: Exception) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = error
    await one.publish([a_message(1)])
    async with one.running():
        await one.until("SELECT state, attempts FROM dead_letters", [("parked", 1)])


@pytest.mark.parametrize("payload", [b"not json", b"", b"\xff\xfe", b'{"a": 1, "a": 2}'])
async def test_a_payload_that_cannot_be_read_is_parked(
    database_url: str, bus: BusServer, payload: bytes
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(1, "a", payload), a_message(2, "b")])
    async with one.running():
        await one.until("SELECT state, error LIKE 'Unreadable%' FROM dead_letters", [("parked", True)])
        await one.until(COUNT, [(1,)])
    assert one.sql("SELECT payload FROM dead_letters") == [(payload,)]


async def test_a_message_that_is_no_event_is_parked(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()
    client = await bus.connect()
    await client.client.publish("events.order", b"hello")  # pyright: ignore[reportAttributeAccessIssue]
    await client.close()
    await one.publish([a_message(2)])
    async with one.running():
        await one.until("SELECT state, kind, payload FROM dead_letters", [("parked", "unreadable", b"hello")])
        await one.until(COUNT, [(1,)])


async def test_a_handler_that_hangs_is_given_up_and_nobody_else_waits(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    one.handle_with_effects()

    @one.consumer.on("order.hangs", HANGS)
    async def hang(_event: Event, _connection: object) -> None:  # pyright: ignore[reportUnusedFunction]
        await asyncio.sleep(3600)

    await one.publish([a_message(1, "a", kind="order.hangs"), a_message(2, "b")])
    async with one.running():
        await one.until(COUNT, [(1,)])
        await one.until("SELECT state, attempts FROM dead_letters", [("parked", 3)])


async def test_two_handlers_of_one_kind_are_refused(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus)
    one.handle_with_effects("order.paid")
    with pytest.raises(BadInput, match=r"'order.paid' has a handler already"):
        one.handle_with_effects("order.paid")


async def test_it_goes_on_after_the_bus_was_killed(database_url: str, bus: BusServer) -> None:
    one = make(database_url, bus, batch=10)
    one.handle_with_effects()
    await one.publish([a_message(n) for n in range(100)])
    async with one.running():
        await one.until("SELECT count(*) > 0 FROM effects", [(True,)])
        bus.server.kill()
        bus.server.start()
        await one.publish([a_message(n) for n in range(100, 150)])
        await one.until(COUNT, [(150,)])
    assert one.effects() == list(range(150))


async def test_a_stream_that_was_made_anew_is_read_whole(database_url: str, bus: BusServer) -> None:
    from tests.events import declare

    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(n) for n in range(20)])
    async with one.running():
        await one.until(COUNT, [(20,)])
    client = await bus.connect()
    await client.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
    await client.close()
    await declare(bus.server.url, bus.outputs)
    await one.publish([a_message(n, message_id=f"new/{n}") for n in range(15, 25)])
    async with one.running():
        await one.until(COUNT, [(25,)])
    assert one.effects() == list(range(25))


async def test_a_stream_that_was_made_anew_and_has_grown_past_the_position_is_read_whole(
    database_url: str, bus: BusServer
) -> None:
    from tests.events import declare

    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(n) for n in range(20)])
    async with one.running():
        await one.until(COUNT, [(20,)])
    client = await bus.connect()
    await client.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
    await client.close()
    await declare(bus.server.url, bus.outputs)
    await one.publish([a_message(n, message_id=f"new/{n}") for n in range(15, 55)])
    async with one.running():
        await one.until(COUNT, [(55,)])
    assert one.effects() == list(range(55))


async def test_a_stream_that_is_made_anew_while_it_is_read_is_read_whole(
    database_url: str, bus: BusServer
) -> None:
    from tests.events import declare

    one = make(database_url, bus)
    one.handle_with_effects()
    await one.publish([a_message(n) for n in range(20)])
    async with one.running():
        await one.until(COUNT, [(20,)])
        client = await bus.connect()
        await client.client.jetstream().delete_stream("EVENTS")  # pyright: ignore[reportAttributeAccessIssue]
        await client.close()
        await declare(bus.server.url, bus.outputs)
        await one.publish([a_message(n, message_id=f"new/{n}") for n in range(15, 25)])
        await one.until(COUNT, [(25,)])
    assert one.effects() == list(range(25))


async def test_a_function_that_only_says_its_writes_has_one_effect_an_event_in_order(
    database_url: str, bus: BusServer
) -> None:
    made = make(database_url, bus)
    made.sql("CREATE UNIQUE INDEX ON effects (n)")
    made.sql("INSERT INTO effects (n, aggregate_id) VALUES (7, 'taken')")

    @made.consumer.writes("*", QUICK)
    def write(event: Event, statements: Statements) -> None:  # pyright: ignore[reportUnusedFunction]
        number = int(event.fingerprint.partition("/")[2])
        if number == 5:
            msg = "no"
            raise Park(msg)
        statements.add("INSERT INTO effects (n, aggregate_id) VALUES (%s, %s)", (number, event.aggregate_id))
        statements.add("UPDATE effects SET aggregate_id = aggregate_id WHERE n = %s", (number,))

    messages = [a_message(n, str(n % 3)) for n in range(12)]
    await made.publish([*messages, *(a_message(n, str(n % 3), message_id=f"again/{n}") for n in (0, 3, 6))])
    async with made.running():
        # 5 asks to be parked, and 8 and 11 are held behind it; the row of 7 was there, with 10 behind.
        await made.until("SELECT count(*) FROM dead_letters", [(5,)])
        await made.until("SELECT sum(duplicates) FROM inbox", [(3,)])
    assert made.effects("0") == [0, 3, 6, 9]
    assert made.effects("1") == [1, 4]
    assert made.effects("2") == [2]
    parked = made.sql("SELECT fingerprint, error FROM dead_letters WHERE state = 'parked' ORDER BY 1")
    assert [(key, error.partition(" ")[0]) for key, error in parked] == [
        ("acme/5", "Park"),
        ("acme/7", "UniqueViolation"),
    ]


async def test_a_statement_that_hangs_is_the_failure_of_its_own_event(
    database_url: str, bus: BusServer
) -> None:
    made = make(database_url, bus)

    @made.consumer.writes("*", HANGS)
    def write(event: Event, statements: Statements) -> None:  # pyright: ignore[reportUnusedFunction]
        number = int(event.fingerprint.partition("/")[2])
        statements.add("SELECT pg_sleep(%s)", (30 if number == 1 else 0,))
        statements.add("INSERT INTO effects (n, aggregate_id) VALUES (%s, %s)", (number, event.aggregate_id))

    await made.publish([a_message(n, str(n)) for n in range(4)])
    async with made.running():
        await made.until("SELECT fingerprint, state FROM dead_letters", [("acme/1", "parked")])
        await made.until("SELECT count(*) FROM effects", [(3,)])
    assert sorted(made.effects()) == [0, 2, 3]


async def test_handlers_of_every_form_work_for_the_tenant_of_their_event(
    database_url: str, bus: BusServer
) -> None:
    one = make(database_url, bus)
    seen: dict[str, list[tuple[str, str | None]]] = {"async": [], "plain": [], "writer": []}

    @one.consumer.on("order.async", QUICK)
    async def _(event: Event, _connection: object) -> None:
        await asyncio.sleep(0)
        seen["async"].append((current_tenant(), current_traceparent()))

    @one.consumer.on("order.plain", QUICK)
    def _(_event: Event, connection: SyncConnection) -> None:
        seen["plain"].append((current_tenant(), current_traceparent()))
        connection.execute("INSERT INTO effects (n) VALUES (1)")

    @one.consumer.writes("order.writer", QUICK)
    def _(_event: Event, _statements: Statements) -> None:
        seen["writer"].append((current_tenant(), current_traceparent()))

    await one.publish(
        [
            a_message(
                10 * m + n,
                f"{m}{n}",
                kind=f"order.{kind}",
                tenant=tenant,
                traceparent=f"00-{n + 1:032x}-{m + 1:016x}-01",
            )
            for m, kind in enumerate(seen)
            for n, tenant in enumerate(("acme", "globex"))
        ]
    )
    async with one.running():
        await one.until("SELECT count(*) FROM inbox", [(6,)])
    for m, found in enumerate(seen.values()):
        assert found == [
            ("acme", f"00-{1:032x}-{m + 1:016x}-01"),
            ("globex", f"00-{2:032x}-{m + 1:016x}-01"),
        ]
    with pytest.raises(NoTenant):
        current_tenant()
