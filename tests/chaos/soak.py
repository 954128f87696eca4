"""The chaos load for as long as one likes: ``make soak MINUTES=60 BUS=kafka``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kilo.errors import BadInput
from tests.chaos.faults import Faults
from tests.chaos.load import Load
from tests.chaos.report import write_report
from tests.chaos.run import BusName, run

_QUIET_SECONDS = 30.0


class _Told:
    """Shows how it goes: live at a terminal, else a line every half minute."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console, self._live = console, live
        self._line_at = 0.0

    def __call__(self, load: Load, faults: Faults, what: str) -> None:
        sample = load.samples[-1] if load.samples else None
        acknowledged = sum(len(writer.acknowledged) for writer in load.writers)
        effects = "?" if sample is None or sample.effects is None else f"{sample.effects:,}"
        waiting = "?" if sample is None or sample.waiting is None else f"{sample.waiting:,}"
        if self._console.is_terminal:
            table = Table("soak", "", show_header=False)
            table.add_row("time", f"{load.seconds:.0f} s")
            table.add_row("last fault", what)
            table.add_row("faults", str(sum(faults.counts.values())))
            table.add_row("acknowledged", f"{acknowledged:,}")
            table.add_row("effects", effects)
            table.add_row("rows waiting", waiting)
            self._live.update(table)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + _QUIET_SECONDS
            self._console.print(
                f"{load.seconds:6.0f} s  {sum(faults.counts.values())} faults, {acknowledged:,} acknowledged,"
                f" {effects} effects, {waiting} waiting"
            )


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long events are written.")] = 10.0,
    bus: Annotated[str, typer.Option(help="nats or kafka.")] = "nats",
    seed: Annotated[int, typer.Option(help="Of the order in which faults come.")] = 7,
    pause_ms: Annotated[float, typer.Option(min=0, help="Of each of 20 writers between two events.")] = 20.0,
    report: Annotated[Path, typer.Option(help="Directory for report.html and report.json.")] = Path(
        "build/soak"
    ),
) -> None:
    """Write events while everything is killed, cut, stalled and filled; report what became of each.

    Exit code 1 when an event was lost, doubled, turned round or left over. Each fault comes at least once,
    which takes some minutes.

    Example:  make soak MINUTES=60 BUS=kafka
    """
    if bus not in {"nats", "kafka"}:
        msg = f"--bus: {bus!r} is no bus; use nats or kafka"
        raise BadInput(msg)
    name: BusName = "kafka" if bus == "kafka" else "nats"
    console = Console()
    with tempfile.TemporaryDirectory(prefix="kilo-soak-") as directory, Live(console=console) as live:
        place = Path(directory)
        # PostgreSQL runs as another user than root, and has to pass.
        place.chmod(0o755)
        done = run(place, name, minutes * 60, seed, pause_ms / 1000, _Told(console, live))
    page = write_report(done, report / name)
    outcome = done.outcome
    console.print(
        f"{outcome.acknowledged:,} events, {sum(done.faults.counts.values())} faults:"
        f" {outcome.lost} lost, {outcome.doubled} doubled, {outcome.out_of_order} out of order,"
        f" {outcome.parked} left over"
    )
    console.print(f"report: {page}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    try:
        typer.run(soak)
    except BadInput as error:
        sys.exit(f"kilo: error: {error}")
