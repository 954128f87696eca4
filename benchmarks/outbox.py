"""Draining the outbox: the sprint's loop as written, faststream-outbox, Debezium Server, the worker.

    make bench NAME=outbox
    make bench NAME=outbox ARGS="--events 50000 --rounds 1"
    make bench NAME=outbox ARGS="--waiting 10000000"    (off by default: it takes minutes)

All work on the same table, bus and machine, in turns; the limits beside them are what no drain can beat
here: a plain COPY of the rows, and publishing ready frames with all acknowledgements counted. The
candidates keep all their guarantees; faststream-outbox has a table of its own and no order per aggregate.
Debezium is warm: it has streamed as many rows before.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.events_stage import Stage, Turns, stage
from benchmarks.outbox_latency import Latency, latency, settle
from benchmarks.outbox_sides import (
    copy_out,
    debezium,
    faststream_outbox,
    fill_faststream,
    kilo_worker,
    kilo_worker_running,
    publish_only,
    sprint_loop,
)
from benchmarks.outbox_waiting import waiting
from benchmarks.rounds import save

SPRINT, OURS, DEBEZIUM = "the sprint's loop", "kilo worker", "Debezium Server, warm"
FASTSTREAM, SHARED = "faststream-outbox", "kilo worker, ten events an aggregate"
COPY, PUBLISH = "limit: COPY out of the table", "limit: pipelined publish"


def drains(made: Stage, events: int, rounds: int) -> dict[str, Turns]:
    """All rounds of all candidates, in turns."""
    names = (SPRINT, FASTSTREAM, DEBEZIUM, OURS, SHARED, COPY, PUBLISH)
    results = {name: Turns(name) for name in names}
    for number in range(1, rounds + 1):
        made.fill(events)
        made.turn(results[SPRINT], sprint_loop, max(200, events // 100))
        made.fill(events // 20)
        fill_faststream(made)
        made.turn(results[FASTSTREAM], faststream_outbox, events // 20)
        with debezium(made) as server:
            server.turn(Turns("warming"), events)
            server.turn(results[DEBEZIUM], events)
        made.fill(events)
        made.turn(results[OURS], kilo_worker, events)
        made.turn(results[COPY], copy_out, events)
        made.fill(events, same=10)
        made.turn(results[SHARED], kilo_worker, events)
        made.turn(results[PUBLISH], publish_only, events)
        rates = ", ".join(
            f"{name} {turns.rounds[-1]['per_second']:,.0f}/s" for name, turns in results.items()
        )
        print(f"round {number} of {rounds}: {rates}", flush=True)
    return results


def latencies(made: Stage, rate: int, seconds: float) -> dict[str, Latency]:
    """Commit to subscriber, by the worker and by Debezium; the others can't keep up with any such rate."""
    made.fill(1)
    with made.running(kilo_worker_running):
        asyncio.run(settle())
        ours = asyncio.run(latency(made.place.database_url, made.place.bus_url, "order", rate, seconds))
    with debezium(made) as server:
        server.turn(Turns("warming"), 20_000)
        theirs = asyncio.run(latency(made.place.database_url, made.place.bus_url, "payment", rate, seconds))
    return {OURS: ours, DEBEZIUM: theirs}


def main() -> None:
    """Run the rounds and save what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000, help="rows to drain a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=1000, help="events a second while latency is measured")
    parser.add_argument("--seconds", type=float, default=10, help="how long latency is measured")
    parser.add_argument(
        "--waiting", type=int, help="instead: throughput and memory with so many rows waiting"
    )
    options = parser.parse_args()
    with stage() as made:
        if options.waiting:
            results, text = waiting(made, options.waiting, options.rounds)
            save("outbox_waiting", results, text)
            return
        turns = drains(made, options.events, options.rounds)
        timed = latencies(made, options.rate, options.seconds)
    base, warm = turns[SPRINT].median("per_second"), turns[DEBEZIUM].median("per_second")
    ours = turns[OURS].median("per_second")
    content = {
        "ratios": {
            "kilo_times_sprint_loop": round(ours / base, 1),
            "kilo_times_debezium_warm": round(ours / warm, 2),
            "kilo_times_faststream_outbox": round(ours / turns[FASTSTREAM].median("per_second"), 1),
            "kilo_of_publish_limit": round(ours / turns[PUBLISH].median("per_second"), 2),
            "kilo_of_copy_limit": round(ours / turns[COPY].median("per_second"), 2),
        },
        "latency": {name: asdict(each) for name, each in timed.items()},
        "candidates": {name: {**each.medians, "rounds": each.rounds} for name, each in turns.items()},
    }
    save("outbox", content, _text(list(turns.values()), base, warm, timed, options.rate))


def _text(turns: Sequence[Turns], base: float, warm: float, timed: dict[str, Latency], rate: int) -> str:
    lines = [
        "### Draining the outbox",
        "",
        "CPU in ms a thousand events: the candidate's own, PostgreSQL's, NATS's. Per event: round trips"
        " (statements, and waits for the bus), WAL bytes, row versions left dead.",
        "",
        "| what | events/s | x sprint | x Debezium | CPU | own | PG | NATS | peak MB | trips | WAL | dead |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in turns:
        value = each.medians
        cells = [
            f"{value['per_second']:,.0f}",
            f"{value['per_second'] / base:.1f}",
            f"{value['per_second'] / warm:.2f}",
            *(
                f"{value[part]:,.1f}"
                for part in ("processor_ms_a_thousand", "own_us", "postgres_us", "bus_us")
            ),
            f"{value['megabytes']:,.0f}",
            f"{value['statements'] + value['bus_waits']:.4f}",
            f"{value['wal_bytes']:,.0f}",
            f"{value['dead_tuples']:.2f}",
        ]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    lines += ["", f"Commit to subscriber at {rate:,} events a second, each committed alone:", ""]
    lines += ["| what | p50 ms | p99 ms | written a second |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | {each.p50_ms:.1f} | {each.p99_ms:.1f} | {each.per_second:,.0f} |"
        for name, each in timed.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
