"""What a promotion acts through on a real stage: its file, the engine, its figures, its audit log."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from infra.promotion.stage_file import PromotionFile
from infra.promotion.table import gate_of, images_of, off_values
from infra.ramps.publish import Branch
from kilo.contract import StackOutputs
from kilo.database.migrator import use_schema
from kilo.engine import EngineSession, HalfDeployed, Locked, NotDeployed
from kilo.errors import CheckFailed
from kilo.goals.cli import looking_at, measuring
from kilo.promotion.conductor import Look
from kilo.promotion.record import Change, Course, Journal, Phase, Value
from kilo.promotion.verification import look_at

Rehearsing = Callable[[Phase], Mapping[str, Any]]


def no_rehearsal(_phase: Phase) -> Mapping[str, Any]:
    """For what is no rehearsal."""
    return {}


@dataclass(frozen=True)
class StagePorts:
    """One stage.

    Attributes:
        url: the database's.
        who: the person or the process.
        publish: commits the stage's file before it is carried out; None where people do that.
        rehearsing: what is looked at of a rehearsal.
    """

    file: PromotionFile
    session: EngineSession
    outputs: StackOutputs
    journal: Journal
    url: str
    who: str
    publish: Branch | None = None
    rehearsing: Rehearsing = no_rehearsal

    def write(self, wanted: Mapping[str, Value]) -> None:
        """Make the stage's file say that."""
        self.journal.held()
        self.file.set(wanted)

    def deploy(self) -> Mapping[str, Any]:
        """Carry the file out by a plan that is bound to the state that it was made from."""
        if self.publish is not None:
            asyncio.run(self.publish.commit(f"Promote to {self.session.stage}"))
        return asyncio.run(self._deploy())

    async def _deploy(self) -> dict[str, Any]:
        on = ["--stack", self.session.stage]
        with tempfile.TemporaryDirectory(prefix="kilo-promote-") as folder:
            plan = Path(folder, "plan.json")
            state = await self.session.state()
            await self.session.run(["preview", *on, "--save-plan", str(plan)])
            text = await asyncio.to_thread(plan.read_bytes)
            planned = json.loads(text)["resourcePlans"].values()
            changed = sum(bool(set(each["steps"]) - {"same"}) for each in planned)
            figures = {
                "plan": sha256(text).hexdigest(),
                "state": sha256(state).hexdigest(),
                "changed": changed,
            }
            if not changed:
                return figures
            await asyncio.to_thread(self.journal.held)
            if sha256(await self.session.state()).digest() != sha256(state).digest():
                msg = (
                    f"{self.session.stage}: the plan is older than the state, since another deployment came "
                    "between; run this again, and it is planned anew"
                )
                raise NotDeployed(msg)
            up = ["up", *on, "--yes", "--skip-preview", "--suppress-outputs", "--plan", str(plan)]
            try:
                await self.session.run(up)
            except Locked:
                raise
            except NotDeployed as error:
                raise HalfDeployed(str(error)) from error
        return figures

    def look(self, course: Course) -> Look:
        """Look at what was promoted, against the stage's row of the table."""
        self.journal.held()
        settings = self.file.settings
        wanted = settings.promotion
        with measuring(self.outputs) as measure:
            return look_at(
                measure,
                looking_at(self.outputs, 1),
                gate_of(settings),
                course.since,
                wanted.verify_minutes * 60 * wanted.soak_factor,
                images_of(course.changes),
            )

    def row_off(self, course: Course) -> tuple[Change, ...]:
        """Images as they were before the promotion, and the row's settings off."""
        self.file.reread()
        before = {each.setting: each.before for each in course.forward if each.setting.startswith("images.")}
        return changes_to(self.file, {**before, **off_values(self.file)})

    def rekey_back(self) -> None:
        """See to it that no rotation is open, where the row is about field encryption."""
        actions = self.file.settings.promotion.row(self.file.settings.stage)
        if not any(each.setting.endswith(".encrypted_fields") for each in actions):
            return
        with psycopg.connect(self.url, connect_timeout=5) as connection:
            use_schema(connection, self.file.settings.database.schema_name)
            open_ = connection.execute(
                "SELECT tenant, plan_hash FROM fle_rotations WHERE state NOT IN ('finalized', 'rolled-back')"
            ).fetchall()
        if open_:
            named = ", ".join(f"{tenant}: {plan[:12]}" for tenant, plan in open_)
            msg = (
                f"keys are to go back, and rotations are under way ({named}); people sign for that: "
                "`kilo fle rotate rollback`, then run this again"
            )
            raise CheckFailed(msg)

    def rehearse(self, phase: Phase) -> Mapping[str, Any]:
        """What is looked at of a rehearsal once a phase's file is in force."""
        return self.rehearsing(phase)

    def note(self, course: Course, phase: Phase, details: Mapping[str, Any]) -> Course:
        """Record a step."""
        return self.journal.note(self.who, phase, course.id, details)

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def changes_to(
    file: PromotionFile, wanted: Mapping[str, Value], steps: Mapping[str, tuple[Value, ...]] | None = None
) -> tuple[Change, ...]:
    """What writing ``wanted`` changes in a stage's file, by these steps where a setting has some."""
    by = steps or {}
    found = [Change(name, file.value(name), value, by.get(name, ())) for name, value in wanted.items()]
    return tuple(each for each in found if each.before != each.after)
