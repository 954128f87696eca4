"""What people and machines see of ramps: a table that is kept up to date, and JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kilo.tables import make_table
from kilo.traffic.ramps.ramp import Ramp, State

_COLOURS = {State.DONE: "green", State.REVERTED: "red", State.REVERTING: "red", State.OVERRIDDEN: "yellow"}


def document(ramp: Ramp) -> dict[str, Any]:
    """A ramp as JSON."""
    return {
        "tenant": ramp.tenant,
        "feature": ramp.feature,
        "state": ramp.state.value,
        "weight": ramp.weight,
        "pending": ramp.pending,
        "steps": list(ramp.steps),
        "in_force_since": ramp.in_force_since.isoformat() if ramp.in_force_since else None,
        "hold_seconds": ramp.gate.hold_seconds,
        "minimum_requests": ramp.gate.minimum_requests,
        "reason": ramp.reason,
        "figures": ramp.figures,
        "started_by": ramp.started_by,
        "started_at": ramp.started_at.isoformat(),
    }


def table(ramps: Sequence[Ramp]) -> Table:
    """Weights, both versions' rates side by side, and why each ramp stands where it stands."""
    columns = (
        "tenant",
        "feature",
        "state",
        "weight",
        "next step",
        "errors next / stable",
        "slow next / stable",
        "why",
    )
    return make_table(columns, [_row(ramp) for ramp in ramps])


def _row(ramp: Ramp) -> tuple[object, ...]:
    return (
        ramp.tenant,
        ramp.feature,
        Text(str(ramp.state), style=_COLOURS.get(ramp.state, "cyan")),
        str(ramp.weight) if ramp.pending is None else f"{ramp.weight} → {ramp.pending}",
        _next(ramp),
        _side_by_side(ramp, "errors"),
        _side_by_side(ramp, "slow"),
        ramp.reason,
    )


def _next(ramp: Ramp) -> str:
    if ramp.state.ended or ramp.state is State.REVERTING:
        return "-"
    following = "end" if ramp.following is None else str(ramp.following)
    if ramp.in_force_since is None or ramp.pending is not None:
        return following
    left = ramp.gate.hold_seconds - (time.time() - ramp.in_force_since.timestamp())
    return f"{following} in {max(left, 0):.0f} s at the soonest"


def _side_by_side(ramp: Ramp, kind: str) -> str:
    """Both versions' shares, each with its upper bound at 95 %: what a few requests can't rule out."""
    if not ramp.figures:
        return "-"
    return " / ".join(
        _share(ramp.figures[version][kind], ramp.figures[version]["requests"])
        for version in ("next", "stable")
    )


def _share(bad: int, requests: int) -> str:
    if not requests:
        return "no requests"
    return f"{bad / requests:.2%} (≤ {_upper_bound(bad, requests):.2%}) of {requests}"


def _upper_bound(bad: int, requests: int) -> float:
    """Wilson's upper bound of a share at 95 % (https://doi.org/10.1080/01621459.1927.10502953)."""
    z = 1.645
    share, squared = bad / requests, z * z / requests
    root = (share * (1 - share) / requests + squared / (4 * requests)) ** 0.5
    return min(1.0, (share + squared / 2 + z * root) / (1 + squared))


class Shown:
    """Shows ramps while they are led: live in a terminal, else a line for each change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said: dict[int, tuple[object, ...]] = {}
        self._live = (
            Live(console=Console(stderr=True), refresh_per_second=4)
            if sys.stderr.isatty() and not as_json
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, ramps: Sequence[Ramp]) -> None:
        """Show where they stand now."""
        if self._live:
            self._live.update(table(ramps))
            return
        for ramp in ramps:
            # The clock and counts go on all the time; a line is for what is new.
            kind = ramp.reason.partition(":")[0] if ramp.pending is None else ramp.reason
            kind = "".join(letter for letter in kind if not letter.isdigit())
            now = (ramp.state, ramp.weight, ramp.pending, kind)
            if self._said.get(ramp.id) != now:
                self._said[ramp.id] = now
                typer.echo(json.dumps(document(ramp)) if self._as_json else line(ramp))


def line(ramp: Ramp) -> str:
    """A ramp in one line, with the figures that its reason comes from."""
    weight = f"{ramp.weight}" if ramp.pending is None else f"{ramp.weight} → {ramp.pending}"
    return f"{ramp.tenant} {ramp.feature}  {weight:>8}  {ramp.state:<10} {ramp.reason}"
