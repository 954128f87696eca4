"""The dev stage's bus by the wire: who gets in, what each may do, and that new passwords lose no event.

One stage is brought up for all tests of this file, which build on each other in order.
"""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from kilo.bus import BusError, Message, connect, encode_headers
from kilo.bus.access import CA_VARIABLE, NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.roles import BUS_ROLES, BusRole
from kilo.contract import StackOutputs
from tests.e2e.conftest import PATIENCE, Stage
from tests.e2e.credentials import replace_under_load, up
from tests.e2e.wire import access_of, client_of
from tests.patience import eventually

pytestmark = pytest.mark.timeout(4 * PATIENCE)
_HEADERS = encode_headers({"Nats-Msg-Id": "wire-1", "kind": "order.made", "tenant": "acme"})
_EVENT = Message("events.order", "wire", _HEADERS, b"{}")
_kept: dict[str, dict[str, str]] = {}
"""What the worker had before its password was replaced."""


def become(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in (USER_VARIABLE, PASSWORD_VARIABLE, NAME_VARIABLE, CA_VARIABLE):
        environment.delenv(name, raising=False)
    for name, value in variables.items():
        environment.setenv(name, value)


@pytest.fixture(scope="module", autouse=True)
def _brought_up(stage: Stage) -> None:
    up(stage)


async def test_who_shows_nothing_or_a_guess_is_not_let_in(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, worker = stage.outputs["bus"]["url"], access_of(stage, "worker")
    become(monkeypatch, {CA_VARIABLE: worker[CA_VARIABLE], NAME_VARIABLE: worker[NAME_VARIABLE]})
    with pytest.raises(BusError, match="wants a user"):
        await connect(url)
    become(monkeypatch, {**worker, PASSWORD_VARIABLE: "a guess"})
    with pytest.raises(BusError, match="refuses user 'worker-1'"):
        await connect(url)
    # Another role's password is a guess too.
    become(monkeypatch, {**worker, PASSWORD_VARIABLE: access_of(stage, "consumer")[PASSWORD_VARIABLE]})
    with pytest.raises(BusError, match="refuses user 'worker-1'"):
        await connect(url)
    # Without a certificate that it believes no client goes on, whatever it would show.
    become(monkeypatch, {name: value for name, value in worker.items() if name != CA_VARIABLE})
    with pytest.raises(BusError, match="has a certificate that is refused"):
        await connect(url)


async def test_a_connection_without_tls_is_cut_off_by_the_server(stage: Stage) -> None:
    host, _, port = stage.outputs["bus"]["url"].removeprefix("tls://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    info = json.loads((await reader.readline()).removeprefix(b"INFO "))
    assert info["auth_required"]
    assert info["tls_required"]
    worker = access_of(stage, "worker")
    shown = {"user": worker[USER_VARIABLE], "pass": worker[PASSWORD_VARIABLE], "verbose": True}
    writer.write(b"CONNECT " + json.dumps(shown).encode() + b"\r\nPUB events.order 2\r\n{}\r\nPING\r\n")
    answer = await reader.read(4096)
    assert b"+OK" not in answer
    assert b"PONG" not in answer
    writer.close()


@pytest.mark.parametrize("role", BUS_ROLES)
async def test_a_role_does_its_own_work_alone(stage: Stage, role: BusRole) -> None:
    bus = StackOutputs.model_validate(stage.outputs).bus
    refusals: list[str] = []

    async def refused(error: Exception) -> None:
        refusals.append(str(error))

    asked = {
        "publish": "elsewhere.order",
        "delete": f"$JS.API.STREAM.DELETE.{bus.stream}",
        "purge": f"$JS.API.STREAM.PURGE.{bus.stream}",
        "info": f"$JS.API.STREAM.INFO.{bus.stream}",
        "declare": f"$JS.API.STREAM.UPDATE.{bus.stream}",
        "heartbeat": "heartbeat.wire",
    }
    async with client_of(bus.url, access_of(stage, role), refused) as client:
        for subject in asked.values():
            await client.publish(subject, b"")
            await client.flush()
        for subject in ("events.>", ">", "$JS.>"):
            await client.subscribe(subject)
            await client.flush()
        # Refusals come in order, so the last one comes last.
        await eventually(
            lambda: any('subscription to "$js.>"' in each for each in refusals), "nothing is refused"
        )
    allowed = {
        name for name, subject in asked.items() if not any(subject.lower() in each for each in refusals)
    }
    assert (
        allowed
        == {
            "worker": set(),
            "cdc": {"heartbeat"},
            "consumer": {"info"},
            "reconciler": {"info"},
            "operator": {"info", "declare"},
        }[role]
    )


async def test_who_reads_can_not_forge_an_event(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, access_of(stage, "consumer"))
    bus = await connect(stage.outputs["bus"]["url"])
    (receipt,) = await bus.publish([_EVENT])
    await bus.close()
    assert receipt.error == "this user may not publish to events.order"


def test_a_program_on_this_machine_is_let_in_by_what_kilo_env_prints(stage: Stage) -> None:
    script = (
        "import asyncio\nfrom kilo.bus import connect\nfrom kilo.contract import load_outputs\n"
        "async def main():\n bus = (await connect(load_outputs().bus.url))\n"
        " print(await bus.last_position('EVENTS'))\n await bus.close()\nasyncio.run(main())\n"
    )
    file = stage.directory / "position.py"
    file.write_text(script, encoding="utf-8")
    process = stage.begin(f"python {file}")
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert printed.strip().isdecimal()


def test_passwords_and_certificates_are_replaced_under_load_without_a_lost_event(stage: Stage) -> None:
    _kept["worker"] = access_of(stage, "worker")
    replace_under_load(stage, "bus")
    assert access_of(stage, "worker")[USER_VARIABLE] == "worker-2"


def test_the_former_password_and_authority_are_worth_nothing_any_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, now = stage.outputs["bus"]["url"], access_of(stage, "worker")
    become(monkeypatch, {**_kept["worker"], CA_VARIABLE: now[CA_VARIABLE]})
    with pytest.raises(BusError, match="refuses user 'worker-1'"):
        asyncio.run(_open_and_close(url))
    become(monkeypatch, now)
    asyncio.run(_open_and_close(url))


def test_another_up_changes_nothing(stage: Stage) -> None:
    done: subprocess.CompletedProcess[str] = stage.pulumi("preview", "-s", "dev", "--expect-no-changes")
    assert done.returncode == 0, done.stdout + done.stderr


async def _open_and_close(url: str) -> None:
    await (await connect(url)).close()
