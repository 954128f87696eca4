"""Leads a stage's ramps: looks at each, decides, and carries all that is due out at once.

Everything it knows is read anew in each pass: from the stage's file, the database, the gateways, Prometheus.
A step is written to the database before it is written to the file, and the file before the engine runs; so
whatever instant a process is killed at, the next one finds what was begun and finishes it:

=================  =====================  ===================================================================
database           stage's file           what the next pass does
=================  =====================  ===================================================================
pending            still the old weight   writes the file, runs the engine, waits for the gateways
pending            the pending weight     runs the engine, which finds nothing to do if it had run, and waits
nothing pending    the ramp's weight      asks the gate
any                something else         a person's: the ramp ends and leaves it
=================  =====================  ===================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from kilo.engine import NotDeployed
from kilo.errors import BadInput, Unreachable
from kilo.tenancy import RampWeight, Tenant
from kilo.traffic.features import SHADOW
from kilo.traffic.ramps.confirm import Answer, Replica
from kilo.traffic.ramps.counted import Subject
from kilo.traffic.ramps.figures import Figures
from kilo.traffic.ramps.freeze import Freezes
from kilo.traffic.ramps.gate import Decision, Verdict, decide
from kilo.traffic.ramps.ramp import Ramp, State
from kilo.traffic.ramps.store import RampStore, Step

_PAUSE_SECONDS = 0.2
Key = tuple[str, str]
"""Tenant and feature."""


class File(Protocol):
    """The stage's file."""

    @property
    def weights(self) -> Mapping[Key, RampWeight]:
        """What it says."""
        ...

    def tenant(self, name: str) -> Tenant:
        """A tenant; raises BadInput where it is none."""
        ...

    def reread(self) -> None:
        """See what others have written."""
        ...

    def set_weights(self, weights: Mapping[Key, RampWeight]) -> None:
        """Write weights."""
        ...


class Engine(Protocol):
    """What carries the file out."""

    async def deploy(self, changes: Mapping[Key, RampWeight], *, urgent: bool) -> None:
        """Bring the file's weights to the gateways; raises NotDeployed."""
        ...


class Gateways(Protocol):
    """The gateways that run."""

    async def ask(self) -> Sequence[Replica]:
        """Every gateway's own account; raises Unreachable where they can't even be listed."""
        ...


class Source(Protocol):
    """Where figures come from."""

    async def figures(self, subject: Subject, since: float) -> Figures:
        """What is known since a moment."""
        ...


@dataclass
class Conductor:
    """One pass after the other, each by :meth:`conduct`.

    Attributes:
        who: the person or process, for the records.
        program: its version.
        clock: seconds since the epoch.
        said: called with each ramp after each pass.
        patience_seconds: for how long one pass waits until the gateways have a step.
    """

    store: RampStore
    file: File
    engine: Engine
    gateways: Gateways
    source: Source
    freezes: Freezes
    who: str
    program: str
    clock: Callable[[], float] = time.time
    said: Callable[[Ramp], None] = lambda _: None
    patience_seconds: float = 30.0
    _deployed: dict[Key, RampWeight] = field(default_factory=dict[Key, RampWeight])
    _rejected: dict[str, int] = field(default_factory=dict[str, int])
    _decided: dict[int, float] = field(default_factory=dict[int, float])

    async def conduct(self) -> list[Ramp]:
        """Look at every ramp once, do what is due, and return where each stands.

        Raises:
            LeaseLost: another process conducts.
            BadInput: the stage's file is not right.
        """
        self.file.reread()
        before = await self.store.active()
        ramps = [await self._look(ramp) for ramp in before]
        due = {ramp.key: ramp for ramp in ramps if ramp.pending is not None and not ramp.state.ended}
        if due:
            carried = {ramp.id: ramp for ramp in await self._carry_out(list(due.values()))}
            ramps = [carried.get(ramp.id, ramp) for ramp in ramps]
        for ramp in ramps:
            self.said(ramp)
        return ramps

    async def _look(self, ramp: Ramp) -> Ramp:
        """Decide what comes next, and write down what is to be begun."""
        found = self.file.weights.get(ramp.key, 0)
        mine = {ramp.weight, ramp.pending}
        if ramp.state is State.REVERTING:
            # What was being set when the revert was asked for may or may not have reached the file.
            mine |= {ramp.weight_before, *ramp.steps}
        if found not in mine:
            reason = f"somebody set the weight to {found}, which stays"
            step = self._step(ramp, "overridden", found, reason)
            return await self.store.update(ramp, step, state=State.OVERRIDDEN, reason=reason, pending=None)
        if ramp.state is State.REVERTING:
            if ramp.pending == ramp.weight_before:
                return ramp
            return await self._begin(ramp, ramp.weight_before, ramp.reason)
        if ramp.pending is not None or ramp.state is State.PAUSED:
            return ramp
        if ramp.in_force_since is None:
            # Nothing was set yet.
            return await self._next(ramp, None)
        return await self._judge(ramp)

    async def _judge(self, ramp: Ramp) -> Ramp:
        hold = await self._not_in_force(ramp)
        if hold:
            return await self.store.update(ramp, reason=hold)
        since = ramp.in_force_since.timestamp() if ramp.in_force_since else self.clock()
        tenant = self.file.tenant(ramp.tenant)
        subject = Subject(
            ramp.tenant,
            tenant.tier,
            ramp.feature,
            tenant.objective.latency_threshold_ms,
            ramp.weight == SHADOW,
        )
        figures = await self.source.figures(subject, since)
        decision = decide(figures, since, tenant.objective, ramp.gate)
        ramp = await self.store.update(ramp, reason=decision.reason, figures=decision.document())
        if decision.verdict is Verdict.REVERT:
            self._decided[ramp.id] = self.clock()
            ramp = await self.store.update(ramp, state=State.REVERTING, reason=decision.reason)
            return await self._begin(ramp, ramp.weight_before, decision.reason)
        if decision.verdict is Verdict.ON and ramp.state is State.RUNNING:
            return await self._next(ramp, decision)
        return ramp

    async def _next(self, ramp: Ramp, decision: Decision | None) -> Ramp:
        following = ramp.following
        reason = decision.reason if decision else "the first step"
        if following is None:
            step = self._step(ramp, "done", ramp.weight, reason)
            return await self.store.update(ramp, step, state=State.DONE, reason=reason)
        if frozen := self.freezes.reason(self.clock()):
            return await self.store.update(ramp, reason=f"{frozen}; {reason}")
        self._decided[ramp.id] = self.clock()
        return await self._begin(ramp, following, reason)

    async def _begin(self, ramp: Ramp, weight: RampWeight, reason: str) -> Ramp:
        now = datetime.fromtimestamp(self.clock(), UTC)
        return await self.store.update(ramp, pending=weight, pending_since=now, reason=reason)

    async def _carry_out(self, ramps: Sequence[Ramp]) -> list[Ramp]:
        """Write the file, run the engine, and wait until every gateway has it, in so far as they do."""
        wanted: dict[Key, RampWeight] = {ramp.key: ramp.pending for ramp in ramps if ramp.pending is not None}
        urgent = any(ramp.state is State.REVERTING for ramp in ramps)
        if urgent:
            # Nothing that fails for others may keep a revert waiting.
            ramps = [ramp for ramp in ramps if ramp.state is State.REVERTING]
            urgent_keys = {ramp.key for ramp in ramps}
            wanted = {key: weight for key, weight in wanted.items() if key in urgent_keys}
        try:
            self.file.set_weights(wanted)
        except BadInput as error:
            if len(ramps) > 1:
                # One tenant's mistake keeps no other waiting.
                return [done for ramp in ramps for done in await self._carry_out([ramp])]
            return [await self.store.update(ramp, reason=f"not carried out: {error}") for ramp in ramps]
        if any(self._deployed.get(key) != weight for key, weight in wanted.items()):
            if not urgent:
                await self._note_refusals()
            try:
                await self.engine.deploy(wanted, urgent=urgent)
            except NotDeployed as error:
                return [await self.store.update(ramp, reason=f"not carried out: {error}") for ramp in ramps]
            self._deployed |= wanted
        deadline = self.clock() + self.patience_seconds
        # Gateways send no word of their own: they are asked.
        while await self._missing(wanted) and self.clock() < deadline:
            if await self._revert_waits(ramps):
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        return [await self._confirmed(ramp) for ramp in ramps]

    async def _note_refusals(self) -> None:
        """Count what gateways have refused before the step, by which its own refusal is told apart."""
        with suppress(Unreachable):
            for replica in await self.gateways.ask():
                if replica.weights is not None:
                    self._rejected.setdefault(replica.url, replica.rejected)

    async def _revert_waits(self, ramps: Sequence[Ramp]) -> bool:
        known = {ramp.id for ramp in ramps if ramp.state is State.REVERTING}
        return any(
            ramp.state is State.REVERTING and ramp.id not in known for ramp in await self.store.active()
        )

    async def _confirmed(self, ramp: Ramp) -> Ramp:
        weight = ramp.weight if ramp.pending is None else ramp.pending
        if missing := await self._missing({ramp.key: weight}):
            return await self.store.update(ramp, reason=missing)
        now = self.clock()
        begun = self._decided.pop(ramp.id, None)
        if begun is None and ramp.pending_since is not None:
            begun = ramp.pending_since.timestamp()
        reverted = ramp.state is State.REVERTING
        step = self._step(
            ramp,
            "revert" if reverted else "step",
            weight,
            ramp.reason,
            seconds=None if begun is None else now - begun,
        )
        changes = {
            "weight": weight,
            "pending": None,
            "in_force_since": datetime.fromtimestamp(now, UTC),
        }
        if reverted:
            return await self.store.update(ramp, step, **changes, state=State.REVERTED)
        return await self.store.update(ramp, step, **changes, figures=None)

    async def _not_in_force(self, ramp: Ramp) -> str:
        return await self._missing({ramp.key: ramp.weight})

    async def _missing(self, wanted: Mapping[Key, RampWeight]) -> str:
        """Which gateways don't have it, and what they say; empty when all have."""
        try:
            replicas = await self.gateways.ask()
        except Unreachable as error:
            return f"the gateways can't be listed: {error}"
        if not replicas:
            return "there is no gateway"
        answers = {
            replica.url: replica.answer(wanted, self._rejected.get(replica.url)) for replica in replicas
        }
        for replica in replicas:
            if answers[replica.url] is Answer.ACK:
                self._rejected[replica.url] = replica.rejected
        missing = [f"{url}: {answer}" for url, answer in answers.items() if answer is not Answer.ACK]
        return (
            f"not in force in {len(missing)} of {len(answers)} gateways: {', '.join(missing)}"
            if missing
            else ""
        )

    def _step(
        self, ramp: Ramp, act: str, weight: RampWeight, reason: str, seconds: float | None = None
    ) -> Step:
        return Step(
            self.who, act, ramp.weight, weight, reason, self.program, figures=ramp.figures, seconds=seconds
        )
