"""``kilo promote rehearse``: each roll-back of the table performed under load, and returned from."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.promotion.cli import AsJson
from infra.promotion.ports import changes_to
from infra.promotion.rehearsal import Load, Rehearsal
from infra.promotion.rekey import Rekey
from infra.promotion.setting import Commit, Setting, Who, half_finished, setting_of, shown
from infra.promotion.table import off_of_row
from infra.promotion.undeployed import refuse_undeployed
from infra.promotion_settings import ROWS
from kilo.automation import read_history
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.notes import load_private_key
from kilo.promotion.conductor import conduct
from kilo.promotion.record import Change, Course, Journal, Phase

Stage = Annotated[str, typer.Option("--stage", "-s", help="The stage.")]


def rehearse(  # noqa: PLR0917 - Typer passes options by name
    stage: Stage,
    row: Annotated[
        list[str] | None, typer.Option(help="Of the table: dev, stage, prod; again for more. All without it.")
    ] = None,
    hold: Annotated[float, typer.Option(min=0, max=3_600, help="Seconds that it stays off.")] = 10,
    rekey: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN", help="An approved rekey, which goes back with the row of encrypted fields."
        ),
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="Your Ed25519 private key, which signs that it is rolled back.")
    ] = None,
    who: Who = None,
    commit: Commit = False,
    as_json: AsJson = False,
) -> None:
    """Perform each roll-back of the table in a stage under load, return, and count every event.

    Events go through the gateway meanwhile; where it asks for tokens, the stage's own traffic is the load. An
    event that was acknowledged and reached no consumer fails the rehearsal. Killed at any instant, the same
    command returns what is off. Not in prod. Exits with 1 when an event was lost or that is not known.

    Where rotation is switched on, keys go back with the row of encrypted fields: values are brought under a
    newer key by the plan of --rekey, come back once the fields are off, and each is read under the older one.
    That takes the plan's settle time.

    Examples: kilo promote rehearse -s dev --row dev · kilo promote rehearse -s stage --row stage
    --rekey 561a370bcd9f --as ana --signing-key ana.pem --json
    """
    setting = setting_of(stage, who)
    if setting.file.settings.is_prod:
        msg = f"--stage {stage}: roll-backs are rehearsed in dev or stage, not on what customers use"
        raise BadInput(msg)
    if unknown := sorted({*(row or ())} - {*ROWS}):
        msg = f"--row {unknown[0]}: the table has {', '.join(ROWS)}"
        raise BadInput(msg)
    documents: list[dict[str, Any]] = []
    keys = _keys_back(setting, rekey, signing_key)
    with setting.leading() as journal:
        course = journal.course()
        if course is not None and not course.phase.ended:
            if course.phase not in {Phase.REHEARSING, Phase.OFF}:
                raise CheckFailed(half_finished(setting.stage, course))
            back = _with_keys(setting, course.changes, keys)
            documents.append(_rehearse(setting, journal, course, hold, back, commit=commit, as_json=as_json))
        else:
            refuse_undeployed(setting.session, read_history(stage, setting.file.path.parent))
        for name in row or ROWS:
            changes = changes_to(setting.file, off_of_row(setting.file, ROWS[name]))
            if not changes:
                typer.echo(f"{stage}: the row of {name} has nothing that is on", err=True)
                continue
            back = _with_keys(setting, changes, keys)
            details = {"from": None, "release": "", "reason": f"the roll-back of {name}"}
            listed = [each.document() for each in changes]
            number = secrets.token_hex(8)
            begun = journal.note(setting.who, Phase.REHEARSING, number, {**details, "changes": listed})
            documents.append(_rehearse(setting, journal, begun, hold, back, commit=commit, as_json=as_json))
    if as_json:
        typer.echo(json.dumps(documents, indent=2))


def _keys_back(setting: Setting, plan: str | None, signing_key: Path | None) -> Rekey | None:
    if plan is None:
        return None
    if signing_key is None:
        msg = "--rekey: give --as NAME and --signing-key FILE, which sign that the keys go back"
        raise BadInput(msg)
    return Rekey.of(setting.outputs, setting.url, plan, setting.who, load_private_key(signing_key))


def _with_keys(setting: Setting, changes: Sequence[Change], keys: Rekey | None) -> Rekey | None:
    """What goes back with a row: keys, where it is about fields and the stage rotates keys at all."""
    if not any(each.setting.endswith(".encrypted_fields") for each in changes):
        return None
    if keys is None and setting.outputs.field_encryption.rotation_enabled:
        msg = (
            f"--rekey: keys go back with the encrypted fields of {setting.stage}; plan and approve a rekey "
            "(kilo fle rotate plan, approve), then give --rekey PLAN --as NAME --signing-key FILE"
        )
        raise BadInput(msg)
    tiers = {each.setting.split(".")[1] for each in changes if each.setting.startswith("tiers.")}
    if keys and (tier := setting.outputs.tenants[keys.tenant].tier) not in tiers:
        about = ", ".join(sorted(tiers))
        msg = f"--rekey: that plan is of {keys.tenant}, of tier {tier}, and the row of {about}"
        raise BadInput(msg)
    return keys


def _rehearse(
    setting: Setting,
    journal: Journal,
    course: Course,
    hold: float,
    keys: Rekey | None,
    *,
    commit: bool,
    as_json: bool,
) -> dict[str, Any]:
    began = next(step["at"] for step in journal.steps() if step["details"].get("promotion") == course.id)
    with ExitStack() as stack:
        own = setting.file.settings.gateway.identity is None
        load = stack.enter_context(Load(setting.outputs)) if own else None
        since = datetime.fromisoformat(began).timestamp()
        looked = Rehearsal(setting.outputs, load, setting.url, since, hold, keys)
        ports = replace(setting.ports(journal, commit=commit), rehearsing=looked)
        if keys and course.phase is Phase.REHEARSING:
            keys.forward()
        conduct(course, ports, shown(as_json=as_json))
    return journal.steps()[-1]["details"]
