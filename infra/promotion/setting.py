"""What the commands that change a stage by promotions share: the stage, its journal, what they say."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from infra.check import stage_file
from infra.promotion.lead import leading
from infra.promotion.ports import StagePorts
from infra.promotion.stage_file import PromotionFile
from infra.ramps.publish import Branch
from infra.ramps.setting import program_of
from kilo.contract import StackOutputs
from kilo.engine import EngineSession
from kilo.environment import database_url
from kilo.fle.commands.common import actor
from kilo.goals.cli import stage_outputs
from kilo.project import find_project
from kilo.promotion.conductor import Look
from kilo.promotion.record import Course, Journal, Phase

Who = Annotated[
    str | None,
    typer.Option("--as", help="Your name; among field_encryption.principals where somebody approves."),
]
Commit = Annotated[bool, typer.Option("--commit", help="Commit and push the stage's file with each step.")]


@dataclass(frozen=True)
class Setting:
    """What the commands work with on the stage that is changed."""

    file: PromotionFile
    session: EngineSession
    outputs: StackOutputs
    url: str
    who: str
    program: str

    @property
    def stage(self) -> str:
        """Its name."""
        return self.session.stage

    def leading(self) -> AbstractContextManager[Journal]:
        """The journal of its promotions, for the one process that leads them."""
        schema = self.file.settings.database.schema_name
        return leading(self.url, schema, self.stage, f"{self.who}, process {os.getpid()}", self.program)

    def ports(self, journal: Journal, *, commit: bool) -> StagePorts:
        """What a promotion acts through; with ``commit`` the file is committed before it is carried out."""
        publish = Branch(self.file.path) if commit else None
        return StagePorts(self.file, self.session, self.outputs, journal, self.url, self.who, publish)


def setting_of(stage: str, who: str | None) -> Setting:
    """What a command works with; ``who`` is this machine's user without one."""
    project = find_project()
    file = PromotionFile(stage_file(project, stage))
    return Setting(
        file,
        EngineSession(stage, project),
        stage_outputs(stage),
        database_url(),
        who or actor(),
        program_of(project),
    )


def half_finished(stage: str, course: Course) -> str:
    """What is said where another course would have to end first."""
    again = {
        Phase.REHEARSING: f"kilo promote rehearse -s {stage}",
        Phase.OFF: f"kilo promote rehearse -s {stage}",
        Phase.ROLLING_BACK: f"kilo promote rollback --to {stage}",
    }.get(
        course.phase, f"kilo promote apply {f'--from {course.source} ' if course.source else ''}--to {stage}"
    )
    return (
        f"{stage}: promotion {course.id} of {course.requester} is half-finished ({course.phase}); go on with "
        f"`{again}`, or take it back with `kilo promote rollback --to {stage}`"
    )


def shown(*, as_json: bool) -> Callable[[Course, Look | None], None]:
    """Prints each phase and each look that says something new."""
    lines: list[str] = []

    def show(course: Course, look: Look | None) -> None:
        what = course.phase.value if look is None else look.verdict
        why = look.reason if look else course.reason or said([each.document() for each in course.changes])
        line = f"{what}: {why}"
        if lines[-1:] != [line]:
            lines.append(line)
            typer.echo(line, err=as_json)

    return show


def said(changes: Any) -> str:
    """Changes, as documents, in one line."""
    return ", ".join(f"{each['setting']} {_way(each)}" for each in changes) or "nothing"


def _way(change: Any) -> str:
    return " → ".join(map(str, (change["before"], *(change.get("steps") or (change["after"],)))))
