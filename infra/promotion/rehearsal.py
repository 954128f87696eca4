"""Load for rehearsals of roll-backs, and the count of what became of every event of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from infra.promotion.rekey import Rekey
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.goals.cli import looking_at, measuring
from kilo.goals.goals import GOALS
from kilo.goals.measure import Verdict
from kilo.promotion.record import Phase
from kilo.tour.count import count, wait_delivered
from kilo.tour.events import make_events
from kilo.tour.sender import Answer, send_all

_ROUND = 40
"""Events that are sent at once."""
_PAUSE_SECONDS = 0.2
_PATIENCE_SECONDS = 180
"""How long is waited for an answer, and for the next event to arrive."""
_HELD_TO = ("lost", "duplicates")
"""Goals that a roll-back keeps, as the table's row of dev has them."""


@dataclass
class Load:
    """Rounds of events through the gateway until it is left."""

    outputs: StackOutputs
    answers: list[Answer] = field(default_factory=list[Answer])
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, once what is under way has its answer."""
        self._over.set()
        self._thread.join()

    async def _send(self) -> None:
        tenants = [name for name, about in self.outputs.tenants.items() if about.accepting]
        gateway = self.outputs.gateway
        while not self._over.is_set():
            events = make_events(tenants, _ROUND)
            self.answers += await send_all(
                gateway.url, gateway.tenant_header, events, timeout_seconds=_PATIENCE_SECONDS
            )
            await asyncio.sleep(_PAUSE_SECONDS)


@dataclass(frozen=True)
class Rehearsal:
    """What is looked at of one roll-back under load.

    Attributes:
        load: what is sent; None where the stage's own traffic is the load.
        url: the database's.
        since: when the rehearsal began, in seconds since the epoch.
        hold_seconds: how long what is off stays off.
        rekey: the rotation that goes back with the row, where it is about field encryption.
    """

    outputs: StackOutputs
    load: Load | None
    url: str
    since: float
    hold_seconds: float
    rekey: Rekey | None = None

    def __call__(self, phase: Phase) -> Mapping[str, Any]:
        """Hold what is off; and once it is on again, count every event.

        Raises:
            CheckFailed: an event was lost, too many came twice, or nobody can tell.
        """
        if phase is Phase.REHEARSING:
            time.sleep(self.hold_seconds)
            back = {"rekey": self.rekey.back()} if self.rekey else {}
            return {"held_seconds": self.hold_seconds, **self._sent(), **back}
        if self.load:
            self.load.stop()
            wait_delivered(
                self.url, self.load.answers, timeout_seconds=_PATIENCE_SECONDS, progress=lambda _: None
            )
        end = {"rekey": self.rekey.end()} if self.rekey else {}
        return {**self._sent(), **self._counted(), **end}

    def _sent(self) -> dict[str, int]:
        if self.load is None:
            return {}
        answers = list(self.load.answers)
        return {"sent": len(answers), "acknowledged": sum(each.acknowledged for each in answers)}

    def _counted(self) -> dict[str, int]:
        """None may be missing, of this run's events and all since the rehearsal began, and few came twice."""
        counted = count(self.url, self.load.answers, {}).values() if self.load else ()
        if missing := sum(each.lost for each in counted):
            msg = f"{missing} acknowledged events reached no consumer (docs/runbooks/promotion.md)"
            raise CheckFailed(msg)
        with measuring(self.outputs) as measure:
            window = int(max(measure.now() - self.since, 1)) + 1
            looking = looking_at(self.outputs, window)
            figures = {goal: goal.look(measure, looking) for goal in GOALS if goal.name in _HELD_TO}
        for goal, figure in figures.items():
            if goal.bound.judge(figure) is not Verdict.MET:
                found = figure.trouble or f"{goal.bound.show(figure.value)}, not {goal.bound}"
                msg = f"{goal.asks}: {found}"
                raise CheckFailed(msg)
        return {"lost": missing, "duplicates": sum(each.duplicates for each in counted)}
