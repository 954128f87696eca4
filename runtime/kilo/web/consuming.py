"""Runs a service's consumer as a process: configuration, logs, traces, health, upkeep of its inbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.applications import Starlette

from kilo.bus import Bus, connect
from kilo.consumer import Connections, Consumer
from kilo.consumer.upkeep import InboxUpkeep
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import bind_address, database_url
from kilo.fle import AsyncFieldCipher
from kilo.fle.kms import KmsClients
from kilo.health import Health
from kilo.observe.logs import start_logging
from kilo.observe.tracing import export_spans
from kilo.sensitive import TABLE
from kilo.service import (
    health_routes,
    log_start,
    serve_until_stopped,
    spare_garbage_collection,
    stopping_event,
)


def run_consumer(
    consumer: Consumer,
    *,
    port: int,
    outputs: StackOutputs | Path | None = None,
    kms: KmsClients | None = None,
) -> None:
    """Consume the stage's events until SIGTERM or SIGINT; the batch in hand is finished first.

    Several copies may run: one works, the others stand by.

    Args:
        consumer: the consumer with its handlers.
        port: where ``/livez``, ``/readyz`` and ``/metrics`` are, on the pod's address or on loopback.
        outputs: the stage's, or the file that they are in; by default the file that ``KILO_OUTPUTS`` names.
        kms: KMS clients; by default those of the process's own credentials.

    Raises:
        BadInput: the outputs are not of this contract, or ``DATABASE_URL`` is not set.
        Unreachable: the outputs can't be read, or the port can't be listened on.
    """
    known = outputs if isinstance(outputs, StackOutputs) else load_outputs(outputs)
    url = database_url()
    start_logging()
    log_start(
        consumer.name,
        {"listens on": f"{bind_address()}:{port}", "database": url, "bus": known.bus.url},
        {"stream": known.bus.stream, "tenants": len(known.tenants)},
    )
    export_spans(consumer.name)
    spare_garbage_collection()
    asyncio.run(_run(consumer, url, known, port, kms))


async def _run(
    consumer: Consumer, url: str, outputs: StackOutputs, port: int, kms: KmsClients | None
) -> None:
    stopping = stopping_event()
    health = Health("database", "bus")
    cipher = AsyncFieldCipher.from_outputs(outputs, url, table=TABLE, kms=kms)

    async def connect_bus() -> Bus:
        return await connect(outputs.bus.url, consumer.name)

    connections = Connections(url, connect_bus, outputs.bus.stream, cipher)
    upkeep = InboxUpkeep(url, connect_bus, outputs.bus.stream, consumer.name, health)
    await serve_until_stopped(
        Starlette(routes=health_routes(health)),
        port,
        stopping,
        [
            lambda: asyncio.ensure_future(consumer.run(connections, stopping, health)),
            lambda: asyncio.ensure_future(upkeep.run(stopping)),
        ],
    )
