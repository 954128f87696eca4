"""``make bench NAME=usage``: entries a second on one core, against what parsing alone costs.

Lines as Envoy writes them, of a hundred tenants. Sides take turns with the same chunk: ``json.loads`` of each
line and nothing else, which is what a plain loop can't beat; that loop with the sums; and the collector's own
adding up. Last the collector with the database behind it, which is another process. Processor time of this
process alone, so that what else runs here counts less; for the last side the clock's stands beside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import show
from kilo.database import migrate
from kilo.database.session import connect
from kilo.testing.servers.postgres import PostgresServer
from kilo.usage.files import Chunk
from kilo.usage.store import UsageStore
from kilo.usage.sums import add_up

RESULTS = Path(__file__).parent / "results"


def _chunk(entries: int, tenants: int) -> bytes:
    chance = random.Random(5503)
    lines: list[str] = []
    for number in range(entries):
        status = chance.choices([202, 200, 429, 503], [90, 6, 3, 1])[0]
        entry = {
            "at": f"2026-03-01T{14 + number * 2 // entries:02}:05:06.{number % 10**6:06}",
            "method": chance.choice(["POST", "POST", "GET"]),
            "received": chance.randrange(2_000),
            "route": "api",
            "sent": chance.randrange(300),
            "shed": "local_rate_limited" if status == 429 else "",
            "status": status,
            "tenant": f"tenant-{chance.randrange(tenants)}",
            "version": "stable",
        }
        lines.append(json.dumps(entry, separators=(",", ":")))
    return "\n".join(lines).encode() + b"\n"


def _parse(chunk: bytes) -> None:
    for line in chunk.splitlines():
        json.loads(line)


def _parse_and_add(chunk: bytes) -> None:
    found: Counter[tuple[str, ...]] = Counter()
    received: Counter[tuple[str, ...]] = Counter()
    sent: Counter[tuple[str, ...]] = Counter()
    for line in chunk.splitlines():
        entry = json.loads(line)
        mix = (
            entry["at"][:13],
            entry["tenant"],
            entry["route"],
            entry["method"],
            f"{entry['status'] // 100}xx",
            entry["version"],
            entry["shed"],
        )
        found[mix] += 1
        received[mix] += entry["received"]
        sent[mix] += entry["sent"]


def _turn(work: Callable[[bytes], object], chunk: bytes) -> float:
    begun = time.process_time()
    work(chunk)
    return time.process_time() - begun


async def _stored(url: str, chunk: bytes, turns: int) -> list[tuple[float, float]]:
    """Processor and wall seconds of each turn, each a stretch of one file."""
    measured: list[tuple[float, float]] = []
    async with await connect(url, "bench") as connection:
        store = UsageStore(connection, "gateway-0")
        begins = await store.read_to("file")
        for _ in range(turns):
            wall, processor = time.monotonic(), time.process_time()
            ends = begins + len(chunk)
            await store.add(Chunk("file", begins, ends, chunk), add_up(chunk))
            begins = ends
            measured.append((time.process_time() - processor, time.monotonic() - wall))
    return measured


def main() -> None:
    """Measure, print and write ``results/usage.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=25_000, help="of one turn, which is about a chunk")
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--turns", type=int, default=20)
    given = parser.parse_args()
    chunk = _chunk(given.entries, given.tenants)
    sides: dict[str, Callable[[bytes], object]] = {
        "json.loads of each line, the limit": _parse,
        "the same, and added up": _parse_and_add,
        "the collector's adding up": add_up,
    }
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(given.turns):
        for side, work in sides.items():
            taken[side].append(_turn(work, chunk))
    with tempfile.TemporaryDirectory() as directory:
        server = PostgresServer(Path(directory) / "postgres")
        server.start()
        try:
            migrate(server.url)
            stored = asyncio.run(_stored(server.url, chunk, given.turns))
        finally:
            server.stop()
    taken["the collector, into PostgreSQL"] = [processor for processor, _ in stored]
    rates = {side: given.entries / statistics.median(times) for side, times in taken.items()}
    wall = given.entries / statistics.median(each for _, each in stored)
    limit = rates["json.loads of each line, the limit"]
    rows = [[side, f"{rate:,.0f}", f"{rate / limit:.2f}"] for side, rate in rates.items()]
    rows.append(["the same by the clock, fsync and all", f"{wall:,.0f}", f"{wall / limit:.2f}"])
    show("Entries a second on one core", ["", "entries/s", "of the limit"], rows)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "entries_a_turn": given.entries,
        "bytes_an_entry": round(len(chunk) / given.entries),
        "tenants": given.tenants,
        "turns": given.turns,
        "entries_a_second": {side: round(rate) for side, rate in rates.items()},
        "entries_a_second_by_the_clock": round(wall),
    }
    (RESULTS / "usage.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
