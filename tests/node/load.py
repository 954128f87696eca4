"""Sends events through the gateway until it is told to stop, and says what became of each.

Run inside the node's namespaces, where a Service's address leads to its pods: ``python -m tests.node.load URL
TENANT keep|new STOP``. Each line that it prints is JSON: the fingerprint of an event that was acknowledged,
or how it failed. It ends when the file STOP is there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

_SENDERS = 4
_PAUSE_SECONDS = 0.1
_SECONDS = 30


async def main(url: str, tenant: str, *, keep: bool, stopped: Callable[[], bool]) -> None:
    """Send until ``stopped``; with ``keep`` over a connection a sender, else over one a request."""
    run = secrets.token_hex(4)

    async def send(client: httpx.AsyncClient, sender: int, number: int) -> dict[str, str]:
        headers = {"x-tenant-id": tenant, "idempotency-key": f"{run}-{sender}-{number}"}
        event = {"aggregate": "order", "aggregate_id": f"{run}-{sender}", "kind": "order.created"}
        event = {**event, "payload": {"number": number}}
        try:
            answer = await client.post(f"{url}/v1/events", headers=headers, json=event)
        except httpx.HTTPError as error:
            return {"failure": f"{number}: {error!r}"}
        if answer.is_success:
            return {"acknowledged": answer.json()["fingerprint"]}
        return {"failure": f"{number}: {answer.status_code} {answer.text[:200]}"}

    async def go_on(sender: int) -> None:
        number = 0
        async with httpx.AsyncClient(timeout=_SECONDS) as kept:
            while not stopped():
                if keep:
                    said = await send(kept, sender, number)
                else:
                    async with httpx.AsyncClient(timeout=_SECONDS) as client:
                        said = await send(client, sender, number)
                print(json.dumps(said), flush=True)
                number += 1
                await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.gather(*(go_on(sender) for sender in range(_SENDERS)))


if __name__ == "__main__":
    _, _url, _tenant, _kind, _stop = sys.argv
    asyncio.run(main(_url, _tenant, keep=_kind == "keep", stopped=Path(_stop).exists))
