"""``kilo traffic tour``: one tenant's ramp to the end, and one that is taken back, under load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from infra.ramps.run import Setting, Shown, lead
from kilo.errors import BadInput, CheckFailed
from kilo.tenancy import RampWeight
from kilo.traffic.features import Feature
from kilo.traffic.ramps.gate import GateSettings
from kilo.traffic.ramps.ramp import Ramp, State, plan_steps
from kilo.traffic.ramps.store import RampStore

STEPS: tuple[RampWeight, ...] = (50, 100)
GATE = GateSettings(hold_seconds=2, minimum_requests=30)
_PAUSE_SECONDS = 0.02
_PATIENCE_SECONDS = 600
"""Half a minute on an idle machine of two cores, five under a load of twenty."""


@dataclass
class Load:
    """Requests for a feature, each with a key of its own, and how they were answered."""

    url: str
    header: str
    feature: Feature
    answers: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    async def send(self, tenant: str) -> None:
        """Send one after the other until it is cancelled; 0 stands for no answer at all."""
        named = {self.header: tenant}
        if self.feature.header:
            named[self.feature.header.name] = self.feature.header.value
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as http:
            while True:
                headers = {**named, "idempotency-key": f"rehearsal-{tenant}-{time.time_ns()}"}
                try:
                    # What ingest, the stable version, has no route for costs nothing and stores nothing.
                    answer = await http.get(self.feature.path or "/v1/rehearsal", headers=headers)
                    self.answers[tenant, answer.status_code] += 1
                except httpx.HTTPError:
                    self.answers[tenant, 0] += 1
                await asyncio.sleep(_PAUSE_SECONDS)


async def tour(setting: Setting, load: Load, tenants: Sequence[str], shown: Shown) -> list[Ramp]:
    """Ramp the feature for the tenants at once, under load, say where each ended, and take all back.

    Raises:
        BadInput: a ramp of one of them is under way already.
        CheckFailed: they did not end in time.
    """
    begun = await _begin(setting, load.feature.id, tenants)
    sending = [asyncio.create_task(load.send(tenant)) for tenant in tenants]
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await lead(setting, begun, shown)
    except TimeoutError:
        msg = f"the ramps came to no end within {_PATIENCE_SECONDS} s (docs/runbooks/ramps.md); taken back"
        raise CheckFailed(msg) from None
    finally:
        # So that it can be shown again, and the stage's file is what it was.
        await _take_back(setting, begun)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def _take_back(setting: Setting, begun: set[int]) -> None:
    """Revert what the ramps have left, ended or not."""
    setting.file.reread()
    async with setting.connection() as connection:
        store = RampStore(connection, setting.stage)
        reverting: set[int] = set()
        for number in begun:
            ramp = await store.get(number)
            if ramp.state.ended and setting.file.weights.get(ramp.key, 0) != ramp.weight_before:
                ramp = await store.start(
                    tenant=ramp.tenant,
                    feature=ramp.feature,
                    steps=[ramp.weight],
                    gate=GATE,
                    before=ramp.weight_before,
                    weight=ramp.weight,
                    who=setting.who,
                    program=setting.program,
                )
            if not ramp.state.ended:
                await store.request(ramp, State.REVERTING, "the tour is over", setting.who, setting.program)
                reverting.add(ramp.id)
    if reverting:
        await lead(setting, reverting, lambda _: None)


async def _begin(setting: Setting, feature: str, tenants: Sequence[str]) -> set[int]:
    async with setting.connection() as connection:
        store = RampStore(connection, setting.stage)
        weights = setting.file.weights
        return {
            (
                await store.start(
                    tenant=tenant,
                    feature=feature,
                    steps=plan_steps(STEPS, 100, weights.get((tenant, feature), 0)),
                    gate=GATE,
                    before=weights.get((tenant, feature), 0),
                    who=setting.who,
                    program=setting.program,
                )
            ).id
            for tenant in tenants
        }


def rehearsed(setting: Setting, feature: str) -> Feature:
    """The feature called so.

    Raises:
        BadInput: the stage has none.
    """
    found = next((each for each in setting.file.settings.features if each.id == feature), None)
    if found is None:
        msg = f"{setting.file.path.name}: there is no feature '{feature}' to rehearse ramps on"
        raise BadInput(msg)
    return found
