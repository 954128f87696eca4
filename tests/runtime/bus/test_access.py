"""Who may do what on a NATS with users and TLS, asserted by trying it; and who gets in at all."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from kilo.bus import BusError, Message, connect, encode_headers
from kilo.bus.access import CA_VARIABLE, NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE, Access
from kilo.bus.roles import BUS_ROLES, BusRole, inbox_prefix
from kilo.errors import BadInput
from tests.events import declare
from tests.patience import eventually
from tests.runtime.bus.guarded import OTHER_HASH, OTHER_PASSWORD, PASSWORD, Guarded, guarded_server
from tests.runtime.traffic.certificates import Authority

EVENT, HEARTBEAT, ELSEWHERE = "events.order", "heartbeat.events", "payments.order"
INFO, CREATE, UPDATE = (f"$JS.API.STREAM.{verb}.EVENTS" for verb in ("INFO", "CREATE", "UPDATE"))
READ = ("$JS.API.CONSUMER.CREATE.EVENTS", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.x")
FORGET = "$JS.API.CONSUMER.DELETE.EVENTS.x"
NOBODYS = (
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.LIST",
    "$JS.API.CONSUMER.CREATE.HEARTBEATS",
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.x",
    "$JS.ACK.EVENTS.x.1.1.1.1.1",
    "$SYS.REQ.SERVER.PING",
    ELSEWHERE,
)
SUBJECTS = (EVENT, HEARTBEAT, INFO, CREATE, UPDATE, *READ, FORGET, *NOBODYS)
ALLOWED: dict[BusRole, set[str]] = {
    "worker": {EVENT},
    "cdc": {EVENT, HEARTBEAT},
    "consumer": {INFO, *READ, FORGET},
    "reconciler": {EVENT, INFO, *READ, FORGET},
    "operator": {INFO, CREATE, UPDATE},
}
INBOXES: dict[BusRole, str] = {
    "worker": "_INBOX_worker.>",
    "cdc": "_INBOX.>",
    "consumer": "_INBOX_consumer.>",
    "reconciler": "_INBOX_reconciler.>",
    "operator": "_INBOX_operator.>",
}
LISTENING = (*INBOXES.values(), ">", "events.>", EVENT, "$JS.>", "$SYS.>", "*.>")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = guarded_server(tmp_path / "guarded")
    made.server.start()
    yield made
    made.server.stop()


async def _as(guarded: Guarded, role: BusRole, refusals: list[str]) -> Client:
    async def refused(error: Exception) -> None:
        refusals.append(str(error))

    return await nats.connect(
        guarded.url,
        user=role,
        password=PASSWORD,
        tls=Access(ca_file=str(guarded.ca_file)).tls(),
        inbox_prefix=inbox_prefix(role),
        allow_reconnect=False,
        error_cb=refused,
    )


def an_event(n: int, subject: str = EVENT) -> Message:
    headers = {"Nats-Msg-Id": f"m{n}", "kind": "order.paid", "fingerprint": f"f{n}"}
    return Message(subject, f"k{n}", encode_headers(headers), b'{"n": %d}' % n)


def taken(subjects: Sequence[str], refusals: list[str]) -> set[str]:
    """What no refusal names; the client hears of refusals a moment after its flush."""
    return {subject for subject in subjects if not any(f'"{subject.lower()}"' in each for each in refusals)}


@pytest.mark.parametrize("role", BUS_ROLES)
async def test_a_role_may_publish_to_these_subjects_and_to_no_other(guarded: Guarded, role: BusRole) -> None:
    refusals: list[str] = []
    client = await _as(guarded, role, refusals)
    for subject in SUBJECTS:
        await client.publish(subject, b"")
        await client.flush()
    await eventually(lambda: taken(SUBJECTS, refusals) == ALLOWED[role], f"{refusals}")
    await client.close()


@pytest.mark.parametrize("role", BUS_ROLES)
async def test_a_role_listens_to_its_own_inbox_alone(guarded: Guarded, role: BusRole) -> None:
    refusals: list[str] = []
    client = await _as(guarded, role, refusals)
    for subject in LISTENING:
        await client.subscribe(subject)
        await client.flush()
    await eventually(lambda: taken(LISTENING, refusals) == {INBOXES[role]}, f"{refusals}")
    await client.close()


async def test_each_role_can_do_its_work(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded.become(monkeypatch, "operator")
    assert await declare(guarded.url, guarded.outputs) == [("EVENTS", "created"), ("HEARTBEATS", "created")]
    assert await declare(guarded.url, guarded.outputs) == [
        ("EVENTS", "up to date"),
        ("HEARTBEATS", "up to date"),
    ]
    guarded.become(monkeypatch, "worker")
    worker = await connect(guarded.url)
    same_key = [an_event(n)._replace(key="one") for n in (3, 4)]
    receipts = await worker.publish([an_event(1), an_event(2), *same_key])
    assert sorted(each.position or 0 for each in receipts) == [1, 2, 3, 4]
    for role in ("consumer", "reconciler"):
        guarded.become(monkeypatch, role)
        bus = await connect(guarded.url)
        assert (await bus.first_position("EVENTS"), await bus.last_position("EVENTS")) == (1, 4)
        seen: list[int] = []
        async for batch in bus.read("EVENTS", 0):
            seen += [each.position for each in batch]
            if len(seen) == 4:
                break
        assert seen == [1, 2, 3, 4]
        await bus.close()
    await worker.close()


async def test_what_a_role_may_not_do_is_said_at_once(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.become(monkeypatch, "operator")
    await declare(guarded.url, guarded.outputs)
    guarded.become(monkeypatch, "consumer")
    consumer = await connect(guarded.url)
    # Far beyond any patience: only the server's refusal ends this.
    forged = await asyncio.wait_for(consumer.publish([an_event(1)], deadline_seconds=100_000), 90)
    assert [each.error for each in forged] == ["this user may not publish to events.order"]
    await consumer.close()
    guarded.become(monkeypatch, "worker")
    worker = await connect(guarded.url)
    mixed = await asyncio.wait_for(
        worker.publish([an_event(1), an_event(2, ELSEWHERE)], deadline_seconds=100_000), 90
    )
    assert (mixed[0].position, mixed[1].error) == (1, f"this user may not publish to {ELSEWHERE}")
    with pytest.raises(
        BusError, match=r"stream EVENTS: this user may not publish to \$js\.api\.stream\.info"
    ):
        await worker.last_position("EVENTS")
    await worker.close()


async def test_a_stranger_is_refused(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CA_VARIABLE, str(guarded.ca_file))
    with pytest.raises(BusError, match="wants a user: set KILO_BUS_USER and KILO_BUS_PASSWORD"):
        await connect(guarded.url)
    guarded.become(monkeypatch, "worker", "a guess")
    with pytest.raises(BusError, match="refuses user 'worker'") as caught:
        await connect(guarded.url)
    assert "a guess" not in str(caught.value)


@pytest.mark.parametrize("fault", ["expired", "another authority", "another name", "the system's"])
async def test_a_false_bus_is_refused(guarded: Guarded, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    guarded.become(monkeypatch, "worker")
    url, why = (
        guarded.url,
        {
            "expired": "certificate has expired",
            "another authority": "certificate verify failed|unable to get local issuer|self-signed|signature",
            "another name": "mismatch",
            "the system's": "set KILO_BUS_CA",
        }[fault],
    )
    if fault == "expired":
        guarded.certify(guarded.authority, timedelta(minutes=-1))
    elif fault == "another authority":
        guarded.certify(Authority())
    elif fault == "another name":
        url = f"tls://127.0.0.1:{guarded.server.port}"
    else:
        monkeypatch.delenv(CA_VARIABLE)
    guarded.server.stop()
    guarded.server.start()
    with pytest.raises(BusError, match=rf"has a certificate that is refused \(.*({why})"):
        await connect(url)


async def test_a_bus_that_is_reached_by_another_name_shows_its_own(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.become(monkeypatch, "worker")
    by_address = f"tls://127.0.0.1:{guarded.server.port}"
    monkeypatch.setenv(NAME_VARIABLE, "localhost")
    await (await connect(by_address)).close()
    monkeypatch.setenv(NAME_VARIABLE, "nats.kilo")
    for url in (by_address, guarded.url):
        with pytest.raises(BusError, match=r"has a certificate that is refused \(.*mismatch"):
            await connect(url)


async def test_the_end_of_a_connection_is_nothing_to_warn_of(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.become(monkeypatch, "worker")
    ended, waiting = await connect(guarded.url), await connect(guarded.url)
    await ended.close()
    guarded.server.kill()
    with pytest.raises(BusError):
        await waiting.publish([an_event(1)])
    await waiting.close()
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == []


async def test_a_password_is_not_shown_to_a_bus_without_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = {"server_id": "x", "version": "2.15.1", "auth_required": True, "max_payload": 1_048_576}
        writer.write(b"INFO " + json.dumps(said).encode() + b"\r\n")
        shown.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(answer, sock=listener)
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Authority().pem)
    monkeypatch.setenv(USER_VARIABLE, "worker")
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    for url, ca in ((f"nats://127.0.0.1:{port}", str(ca_file)), (f"tls://127.0.0.1:{port}", "")):
        monkeypatch.setenv(CA_VARIABLE, ca)
        with pytest.raises(BusError, match="it offers no TLS"):
            await connect(url)
    await eventually(lambda: len(shown) >= 2)
    server.close()
    assert PASSWORD.encode() not in b"".join(shown)


async def test_a_mistake_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(USER_VARIABLE, "worker")
    with pytest.raises(BadInput, match="KILO_BUS_PASSWORD: not set while KILO_BUS_USER is"):
        await connect("nats://127.0.0.1:1")
    monkeypatch.delenv(USER_VARIABLE)
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path in (empty, tmp_path / "absent.pem"):
        monkeypatch.setenv(CA_VARIABLE, str(path))
        with pytest.raises(BadInput, match=rf"KILO_BUS_CA: {path} is no file of certificates in PEM"):
            await connect("nats://127.0.0.1:1")


async def test_certificates_authorities_and_passwords_change_under_load_without_a_loss(  # noqa: PLR0915
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.become(monkeypatch, "operator")
    await declare(guarded.url, guarded.outputs)
    guarded.become(monkeypatch, "worker")
    acknowledged, stopping = 0, asyncio.Event()

    async def publish() -> None:
        nonlocal acknowledged
        bus = None
        while not stopping.is_set():
            try:
                bus = bus or await connect(guarded.url)
                (receipt,) = await bus.publish([an_event(acknowledged + 1)])
            except BusError:
                bus = None
                continue
            acknowledged += receipt.position is not None
        if bus:
            await bus.close()

    async def more() -> None:
        """Wait until events go through again."""
        goal = acknowledged + 20
        await eventually(lambda: acknowledged >= goal, "nothing is published any more")

    running = asyncio.create_task(publish())
    await more()
    successor, old = Authority(), guarded.ca_file.read_bytes()
    guarded.ca_file.write_bytes(old + successor.pem)
    guarded.certify(successor)
    guarded.server.reload(guarded.access())
    await more()
    guarded.ca_file.write_bytes(successor.pem)
    for _ in range(600):  # until a client that believes the successor alone gets in
        try:
            bus = await connect(guarded.url)
            break
        except BusError:
            await asyncio.sleep(0.1)
    else:
        pytest.fail("the new certificate was not taken up")
    await bus.close()
    await more()
    guarded.become(monkeypatch, "worker", OTHER_PASSWORD)
    guarded.server.reload(guarded.access(OTHER_HASH))
    await more()
    stopping.set()
    await running
    guarded.become(monkeypatch, "consumer", OTHER_PASSWORD)
    bus = await connect(guarded.url)
    found: set[str] = set()
    async for batch in bus.read("EVENTS", 0):
        found |= {each.headers["fingerprint"] for each in batch}
        if len(found) >= acknowledged:
            break
    last = await bus.last_position("EVENTS")
    await bus.close()
    assert found >= {f"f{n}" for n in range(1, acknowledged + 1)}
    # Nothing twice: the last may have been stored without its acknowledgement.
    assert last <= acknowledged + 1
