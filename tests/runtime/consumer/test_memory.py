"""The consumer within its pod's memory, with the largest payloads that are permitted waiting for it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import a_message, make

POD_MEBIBYTES = 384
"""As components/processes/consumer.py has it."""
PAYLOAD_LIMIT_BYTES = 262_144

CONSUMER = """
import asyncio, resource, sys
limit = int(sys.argv[3]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from kilo.bus import connect
from kilo.consumer import Consumer, Park, Connections, Policy
from tests.runtime.consumer.support import Plain
consumer = Consumer("test")
@consumer.on("*", Policy(attempts=2, first_pause_seconds=0))
async def handle(event, connection):
    if event.payload.get("fails"):
        raise RuntimeError
    await connection.execute("INSERT INTO effects (aggregate_id) VALUES (%s)", (event.tenant,))
async def main():
    connections = Connections(sys.argv[1], lambda: connect(sys.argv[2]), "EVENTS", Plain())
    await consumer.run(connections, asyncio.Event())
asyncio.run(main())
"""


@pytest.mark.parametrize(("fails", "waiting"), [("false", 500), ("true", 100)])
async def test_a_backlog_of_the_largest_events_fits_and_another_tenants_small_one_gets_through(
    database_url: str, bus: BusServer, fails: str, waiting: int
) -> None:
    one = make(database_url, bus)
    head = b'{"fails": %b, "x": ' % fails.encode()
    room = PAYLOAD_LIMIT_BYTES - len(head) - 8
    text = head + b'"%b"}' % (b"x" * room)
    # Many small values: read into objects they take many times their bytes.
    values = head + b"[" + b"[1]," * (room // 4) + b"0]}"
    for start in range(0, waiting, 50):
        await one.publish(
            [a_message(n, f"{n}", text if n % 50 else values) for n in range(start, start + 50)]
        )
    await one.publish([a_message(1, "z", tenant="globex", message_id="globex/1")])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CONSUMER, database_url, bus.server.url, str(POD_MEBIBYTES)), stderr=PIPE
    )
    try:
        ended = asyncio.ensure_future(process.communicate())
        through = asyncio.ensure_future(
            one.until("SELECT count(*) FROM effects WHERE aggregate_id = 'globex'", [(1,)])
        )
        await asyncio.wait([ended, through], return_when=asyncio.FIRST_COMPLETED)
        assert not ended.done(), ended.result()[1].decode()[-2000:]
        await through
        if fails == "true":
            parked = "SELECT count(*) FROM dead_letters WHERE state = 'parked' AND attempts = 2"
            await one.until(parked, [(waiting,)])
        else:
            await one.until("SELECT count(*) FROM effects", [(waiting + 1,)])
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
