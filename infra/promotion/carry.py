"""``kilo promote apply | rollback | history``: carried out, taken back and read again."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

import typer

from infra.check import stage_file
from infra.promotion.cli import AsJson, To, print_checks, sign_as, target_of
from infra.promotion.lead import reading
from infra.promotion.ports import changes_to
from infra.promotion.setting import Commit, Setting, Who, half_finished, said, setting_of, shown
from infra.promotion.source import Source, ask
from infra.promotion.stage_file import PromotionFile
from infra.promotion.table import carried, gate_of, on_values, steps_of
from infra.promotion.undeployed import refuse_other_program, refuse_undeployed
from kilo.automation import read_history
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.signatures import PROMOTE
from kilo.goals.cli import measuring
from kilo.promotion.approvals import approve, check_approved, digest_of
from kilo.promotion.conductor import conduct
from kilo.promotion.gates import check_first
from kilo.promotion.record import Course, Journal, Phase
from kilo.tables import print_table

From = Annotated[
    str | None, typer.Option("--from", help="The stage that the release runs in; none for --to dev.")
]


def apply(  # noqa: PLR0917 - Typer passes options by name
    to: To,
    source: From = None,
    who: Who = None,
    approver: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KEYFILE", help="Somebody else who signs; needed for every stage but dev."),
    ] = None,
    commit: Commit = False,
    as_json: AsJson = False,
) -> None:
    """Promote what is live in a stage to the next one, look on for a soak, and roll back what is not good.

    First the gate is asked. Then the images, by digest, and what the table's row switches on are written
    into the stage's file and carried out by the engine, by a plan bound to the state that it was made from.
    The stage is looked at for `promotion.verify_minutes`; what is known to be bad, or still unknown after
    that, is rolled back as the table says. Every step is an entry of the audit log, which is all that is
    remembered: killed at any instant, the same command goes on. One process leads at a time.

    DATABASE_URL and KILO_OUTPUTS are those of the stage that is promoted to, KILO_FROM_DATABASE_URL (and
    KILO_FROM_OUTPUTS) those of the stage that it comes from. Exits with 1 when it was refused or rolled back.

    Examples: kilo promote apply --to dev · kilo promote apply --from dev --to stage --as ana
    --approver bo=bo.pem --commit
    """
    setting = setting_of(to, who)
    _steps_fit(source, to)
    with setting.leading() as journal:
        course = journal.course()
        if course is None or course.phase.ended:
            course = _begin(setting, journal, source, approver or [], as_json=as_json)
        else:
            _may_go_on(setting, course, source)
        ended = conduct(course, setting.ports(journal, commit=commit), shown(as_json=as_json))
    _end(setting, ended, Phase.VERIFIED, as_json=as_json)


def rollback(
    to: To,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    who: Who = None,
    commit: Commit = False,
    as_json: AsJson = False,
) -> None:
    """Take the stage's last promotion back, finished or not: images as they were, and the table's row off.

    dev: outbox workers off, connector paused; events wait in the outbox and the write-ahead log. stage:
    gold's encrypted fields off, and rotations under way are rolled back by the people who sign for them.
    prod: weights at 0, shedding off. It needs no approval. Killed at any instant, the same command goes on.

    Examples: kilo promote rollback --to dev --reason 'incident 42' · kilo promote rollback --to prod
    --reason 'checkout fails' --commit --json
    """
    setting = setting_of(to, who)
    with setting.leading() as journal:
        ports = setting.ports(journal, commit=commit)
        course = journal.course()
        if course is None or course.phase is not Phase.ROLLING_BACK:
            last = course or Course(secrets.token_hex(8), Phase.VERIFIED, None, "", "", (), (), 0.0)
            about = {"from": last.source, "release": last.release, "reason": reason}
            changes = [each.document() for each in ports.row_off(last)]
            course = journal.note(setting.who, Phase.ROLLING_BACK, last.id, {**about, "changes": changes})
        ended = conduct(course, ports, shown(as_json=as_json))
    _end(setting, ended, Phase.ROLLED_BACK, as_json=as_json)


def history(to: To, as_json: AsJson = False) -> None:
    """Show every recorded step of a stage's promotions: when, who, what, and why.

    Examples: kilo promote history --to dev · kilo promote history --to prod --json | jq '.[-1]'
    """
    setting = setting_of(to, None)
    with reading(setting.url, setting.file.settings.database.schema_name, to) as journal:
        steps = journal.steps()
    if as_json:
        typer.echo(json.dumps(steps, indent=2))
        return
    rows = [
        (
            step["at"][:19].replace("T", " "),
            step["details"].get("promotion", "")[:8],
            step["details"].get("act", "-"),
            step["actor"],
            _told(step["details"]),
        )
        for step in steps
    ]
    print_table(("at", "promotion", "step", "who", "why, or what"), rows)


def _steps_fit(source: str | None, to: str) -> None:
    if source is not None:
        target_of(source, to)
    elif to.partition("-")[0] != "dev":
        msg = f"--from: name the stage that the release comes from; only dev has none before it, not {to}"
        raise BadInput(msg)


def _begin(
    setting: Setting, journal: Journal, source: str | None, approver: list[str], *, as_json: bool
) -> Course:
    """Ask the gate, and record what it let pass."""
    project = setting.file.path.parent
    refuse_undeployed(setting.session, read_history(setting.stage, project))
    found: Source | None = None
    wanted = on_values(setting.file)
    if source is None:
        with measuring(setting.outputs) as measure:
            checks = check_first(measure, gate_of(setting.file.settings))
        if not as_json:
            print_checks(checks)
        if failed := [each.name for each in checks if not each.passed]:
            msg = f"nothing is promoted to {setting.stage}: {', '.join(failed)}"
            raise CheckFailed(msg)
        figures = [each.document() for each in checks]
    else:
        found = ask(source, setting.stage, project)
        refuse_other_program(project, found.program)
        theirs = PromotionFile(stage_file(project, source)).settings
        wanted |= carried(theirs, found.running, found.outputs, setting.outputs)
        figures = found.gate["checks"]
    details: dict[str, Any] = {
        "from": source,
        "release": found.release if found else "",
        "changes": [each.document() for each in changes_to(setting.file, wanted, steps_of(setting.file))],
        "figures": figures,
        "emergency": found.gate["emergency"] if found else None,
    }
    if source is not None:
        digest = digest_of(details, setting.stage, setting.who)
        signed = [sign_as(setting.outputs, each, PROMOTE, digest) for each in approver]
        details["approvals"] = approve(setting.outputs, setting.who, digest, signed)
    return journal.note(setting.who, Phase.BEGUN, secrets.token_hex(8), details)


def _may_go_on(setting: Setting, course: Course, source: str | None) -> None:
    """A half-finished course is gone on with only by whoever asks for the same, and as it was approved."""
    if course.phase in {Phase.REHEARSING, Phase.OFF} or course.source != source:
        raise CheckFailed(half_finished(setting.stage, course))
    if course.source is None or course.phase is Phase.ROLLING_BACK:
        return
    check_approved(setting.outputs, course)


def _told(details: dict[str, Any]) -> str:
    """Why a step was taken, or what it did."""
    if details.get("reason"):
        return str(details["reason"])
    if "changes" in details:
        return said(details["changes"])
    return f"{details['changed']} resources" if "changed" in details else "-"


def _end(setting: Setting, course: Course, wanted: Phase, *, as_json: bool) -> None:
    if as_json:
        document = {
            "stage": setting.stage,
            "promotion": course.id,
            "phase": course.phase.value,
            "release": course.release,
            "reason": course.reason,
            "changes": [each.document() for each in course.changes],
        }
        typer.echo(json.dumps(document, indent=2))
    if course.phase is not wanted:
        msg = f"{setting.stage}: promotion {course.id} is {course.phase}: {course.reason}"
        raise CheckFailed(msg)
