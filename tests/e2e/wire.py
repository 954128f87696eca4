"""A client of a stage's bus as one of its roles, for what the platform's own bus does not do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

from kilo.bus.access import CA_VARIABLE, NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE, Access
from kilo.bus.roles import BusRole, inbox_prefix
from kilo.contract import StackOutputs
from sandbox.bus_access import fetch_access
from tests.e2e.conftest import Stage


def access_of(stage: Stage, role: BusRole, namespace: str | None = None) -> dict[str, str]:
    """The variables of a role; of the bus of another namespace if one is given."""
    outputs = StackOutputs.model_validate(stage.outputs)
    there = outputs.model_copy(update={"namespace": namespace or outputs.namespace})
    return fetch_access(stage.directory, stage.endpoints.cluster, there, role)


@asynccontextmanager
async def client_of(
    url: str, variables: dict[str, str], error: Callable[[Exception], Awaitable[None]] | None = None
) -> AsyncGenerator[Client]:
    """A client that shows ``variables`` to the bus."""
    access = Access(ca_file=variables[CA_VARIABLE])
    client = await nats.connect(
        url,
        user=variables[USER_VARIABLE],
        password=variables[PASSWORD_VARIABLE],
        tls=access.tls(),
        tls_hostname=variables[NAME_VARIABLE],
        inbox_prefix=inbox_prefix(variables[USER_VARIABLE]),
        allow_reconnect=False,
        error_cb=error,
    )
    try:
        yield client
    finally:
        await client.close()
