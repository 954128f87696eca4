"""Load for the ingest benchmark: requests over kept connections, as cheap as a client of Python's can be.

It runs in a process of its own, so that its processor time is nobody's; connections share one event loop.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from kilo.service import run_to_end

TENANTS = ("acme", "globex", "initech")
_NOTE = "x" * 150
_AGAIN = 503


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        url: the server's.
        run: makes keys unlike those of other runs.
        connections: at once; each sends its next request when it has its answer.
        seconds: how long.
        batch: events a request; 0 for one by ``POST /v1/events``.
        per_second: requests over all connections; 0 for as many as there can be.
    """

    url: str
    run: str
    connections: int
    seconds: float
    batch: int = 0
    per_second: float = 0.0


@dataclass(frozen=True)
class Answered:
    """What came of it: acknowledged events and their rate, latencies in milliseconds (nearest rank).

    A request that is answered with 503 is sent again, as a client does; it takes as long as all its tries.
    """

    events: int
    requests: int
    repeated: int
    per_second: float
    p50_ms: float
    p99_ms: float


def send(load: Load) -> Answered:
    """Send ``load`` from a process of its own.

    Raises:
        RuntimeError: an event was not acknowledged.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_run, args=(load, theirs), daemon=True)
    process.start()
    try:
        if not mine.poll(load.seconds + 120):
            msg = "the load's process does not answer"
            raise RuntimeError(msg)
        answer = mine.recv()
    except EOFError:
        msg = "the load's process ended"
        raise RuntimeError(msg) from None
    finally:
        process.terminate()
        process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def event_of(key: str, connection: int, n: int) -> dict[str, object]:
    """An event as a service sends it, of an aggregate of its own; every fourth goes by change capture."""
    return {
        "aggregate": "payment" if n % 4 == 0 else "order",
        "aggregate_id": f"{connection}-{n}",
        "kind": "order.created",
        "payload": {"number": n, "customer": "Zoë Müller", "note": _NOTE, "key": key},
    }


def _run(load: Load, answer: multiprocessing.connection.Connection) -> None:  # pyright: ignore[reportAttributeAccessIssue]
    times: list[float] = []
    repeats: list[str] = []

    async def main() -> None:
        started = time.perf_counter()
        await asyncio.gather(
            *(_connection(load, n, started, times, repeats) for n in range(load.connections))
        )
        taken = time.perf_counter() - started
        ordered = sorted(times)
        half, most = (
            ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 for share in (0.5, 0.99)
        )
        events = len(times) * (load.batch or 1)
        answer.send(Answered(events, len(times), len(repeats), events / taken, half, most))

    try:
        run_to_end(main())
    except Exception as error:
        answer.send(RuntimeError(f"{type(error).__name__}: {error}"))


async def _connection(
    load: Load, number: int, started: float, times: list[float], repeats: list[str]
) -> None:
    url = urlsplit(load.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    tenant, n = TENANTS[number % len(TENANTS)], 0
    while (now := time.perf_counter()) < started + load.seconds:
        due = now
        if load.per_second:
            # By the clock and not by the last answer: a slow server must not slow its own load.
            due = started + (n * load.connections + number) / load.per_second
            if due > started + load.seconds:
                break
            await asyncio.sleep(due - now)
        request = _request(load, tenant, number, n)
        due = max(due, now) if load.per_second else time.perf_counter()
        writer.write(request)
        status, body = await _answer(reader)
        while status == _AGAIN and len(repeats) < len(times):
            repeats.append(body.decode())
            writer.write(request)
            status, body = await _answer(reader)
        if status not in {200, 201} or (load.batch and json.loads(body)["accepted"] != load.batch):
            msg = f"{status}: {body[:300].decode()}"
            raise RuntimeError(msg)
        times.append(time.perf_counter() - due)
        n += 1
    writer.close()


def _request(load: Load, tenant: str, number: int, n: int) -> bytes:
    key = f"{load.run}-{number}-{n}"
    if load.batch:
        path, media = "/v1/events:batch", "application/x-ndjson"
        events = [
            {"key": f"{key}-{each}", **event_of(key, number, n * load.batch + each)}
            for each in range(load.batch)
        ]
        body = "\n".join([json.dumps(each, ensure_ascii=False) for each in events]).encode()
    else:
        path, media = "/v1/events", "application/json"
        body = json.dumps(event_of(key, number, n), ensure_ascii=False).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: ingest\r\nx-tenant-id: {tenant}\r\nidempotency-key: {key}\r\n"
        f"content-type: {media}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"content-length:")
    body = await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    return int(head[9:12]), body
