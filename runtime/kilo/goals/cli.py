"""``kilo goals`` and ``kilo risks``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer
from rich.text import Text

from kilo.automation import read_outputs, read_state
from kilo.contract import StackOutputs, load_outputs
from kilo.environment import DATABASE_VARIABLE, OUTPUTS_VARIABLE
from kilo.errors import BadInput, CheckFailed, KiloError, Unreachable
from kilo.goals.figures import Looking
from kilo.goals.goals import Standing, read_goals
from kilo.goals.measure import Measure, Verdict, open_database
from kilo.goals.previews import read_previews
from kilo.goals.risks import Finding, State, read_risks
from kilo.observe.prometheus import Prometheus
from kilo.project import find_project, locate_project
from kilo.tables import print_table

StageOption = Annotated[str, typer.Option("--stage", "-s", help="The stage, such as dev.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
WindowOption = Annotated[str, typer.Option("--window", help="How far to look back: 90s, 30m, 24h, 7d.")]
_COLOURS = {
    Verdict.MET: "green",
    Verdict.MISSED: "red",
    Verdict.UNKNOWN: "yellow",
    State.HOLDS: "green",
    State.ABSENT: "red",
    State.UNKNOWN: "yellow",
}
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def goals(stage: StageOption, window: WindowOption = "24h", as_json: JsonOption = False) -> None:
    """Show each goal of the sprint with its live figure, bound, and what the figure was before.

    That is a day and a week ago, and before the stage was last promoted to; where a source has nothing of
    then, there is no history yet.

    A figure whose data is stale or missing, or whose clock is wrong, is "unknown" and never met. Asks the
    stage's Prometheus, the database of DATABASE_URL and the engine's state. Exits with 1 when a goal is
    missed, and with 3 when one is unknown.

    Examples: kilo goals -s dev · kilo goals -s stage --window 7d · kilo goals -s dev --json
    """
    seconds = duration(window, "--window")
    outputs = stage_outputs(stage)
    with measuring(outputs) as measure:
        standings = read_goals(measure, looking_at(outputs, seconds))
    now = time.time()
    if as_json:
        typer.echo(json.dumps([each.document(now) for each in standings], indent=2))
    else:
        print_goals(standings, now)
    _end({each.goal.name: each.verdict.value for each in standings}, Verdict.MISSED, Verdict.UNKNOWN)


def risks(stage: StageOption, as_json: JsonOption = False) -> None:
    """Check that each mitigation of the risk register is there, and show its evidence.

    Exits with 1 when one is absent, and with 3 when one can't be looked at.

    Examples: kilo risks -s dev · kilo risks -s prod --json | jq '.[] | select(.state == "absent")'
    """
    outputs = stage_outputs(stage)
    with measuring(outputs) as measure:
        findings = read_risks(measure, outputs)
    if as_json:
        typer.echo(json.dumps([each.document() for each in findings], indent=2))
    else:
        print_risks(findings)
    found = {each.mitigation.name: each.shown.state.value for each in findings}
    _end(found, State.ABSENT, State.UNKNOWN)


def print_goals(standings: list[Standing], now: float) -> None:
    """The goals' table."""
    rows: list[tuple[object, ...]] = []
    for each in standings:
        at = each.figure.sampled_at
        age = "-" if at is None else f"{max(now - at, 0):.0f} s"
        said = each.figure.trouble or each.goal.asks
        verdict = Text(each.verdict.value, style=_COLOURS[each.verdict])
        bound = each.goal.bound
        past = [each.shown(one) for one in each.past]
        figure = bound.show(each.figure.value)
        rows.append((each.goal.name, verdict, figure, str(bound), *past, age, said))
    when = [one.moment.name for one in standings[0].past]
    names = ("goal", "verdict", "figure", "bound", *when, "age", "")
    print_table(names, rows, numbers=("figure", *when, "age"))


def print_risks(findings: list[Finding]) -> None:
    """The risks' table."""
    rows = [
        (
            each.mitigation.risk,
            each.mitigation.name,
            Text(each.shown.state.value, style=_COLOURS[each.shown.state]),
            each.shown.evidence,
        )
        for each in findings
    ]
    print_table(("risk", "mitigation", "state", "evidence"), rows)


def stage_outputs(stage: str) -> StackOutputs:
    """The outputs of ``stage``: those of the stage that is up here, or of the file that KILO_OUTPUTS names.

    Without either, of the engine. So figures of one stage are never shown as another's.

    Raises:
        BadInput: KILO_OUTPUTS names another stage's, or there is no such stage.
    """
    if os.environ.get(OUTPUTS_VARIABLE):
        outputs = load_outputs()
        if outputs.stage != stage:
            msg = f"--stage {stage}: {OUTPUTS_VARIABLE} has the outputs of {outputs.stage}; name that stage"
            raise BadInput(msg)
        return outputs
    return read_outputs(stage, find_project())


@contextmanager
def measuring(outputs: StackOutputs) -> Generator[Measure]:
    """Something that asks the stage's Prometheus and database."""
    connection = open_database(os.environ.get(DATABASE_VARIABLE, ""), outputs.database.schema_name)
    try:
        with Prometheus(outputs.monitoring.prometheus_url) as prometheus:
            yield Measure(prometheus, outputs.namespace, connection)
    finally:
        if isinstance(connection, psycopg.Connection):
            connection.close()


def looking_at(outputs: StackOutputs, window_seconds: int) -> Looking:
    """What goals look at besides Prometheus and database."""
    project = locate_project()
    try:
        state = (
            "there is no checkout here, so the stack's state was not read"
            if project is None
            else read_state(outputs.stage, project)
        )
    except KiloError as error:
        state = str(error)
    previews = read_previews(project / ".kilo" / "previews") if project else ()
    return Looking(outputs, window_seconds, state=state, previews=previews)


def duration(text: str, flag: str) -> int:
    """Seconds of ``90s``, ``30m``, ``24h`` or ``7d``.

    Raises:
        BadInput: it is none of these.
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 10_000 and unit in _UNITS):
        msg = f"{flag} {text}: not a time; use 90s, 30m, 24h or 7d"
        raise BadInput(msg)
    return int(number) * _UNITS[unit]


def _end(found: dict[str, str], failed: str, unknown: str) -> None:
    no = [name for name, state in found.items() if state == failed]
    if no:
        msg = f"{failed}: {', '.join(no)}"
        raise CheckFailed(msg)
    blind = [name for name, state in found.items() if state == unknown]
    if blind:
        msg = f"not known: {', '.join(blind)}"
        raise Unreachable(msg)
