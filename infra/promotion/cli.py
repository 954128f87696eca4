"""``kilo promote status | check | emergency``: the gates of the stages' files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from infra.check import stage_file
from infra.configuration import read_stage_file
from infra.promotion.table import gate_of
from infra.settings import Settings
from kilo.automation import read_history, read_state
from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.notes import load_private_key
from kilo.fle.audit.signatures import PROMOTE_EMERGENCY
from kilo.fle.commands.common import database
from kilo.fle.rotation import approval
from kilo.goals.cli import looking_at, measuring, stage_outputs
from kilo.project import find_project
from kilo.promotion import emergency as emergencies
from kilo.promotion.gates import Check, check_gate
from kilo.promotion.release import Digests, Live, observe, read_live, resolve
from kilo.tables import print_table

_ORDER = ("dev", "stage", "prod")
From = Annotated[str, typer.Option("--from", help="The stage that the release runs in.")]
To = Annotated[str, typer.Option("--to", help="The stage that it is promoted to.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def status(source: From, as_json: AsJson = False) -> None:
    """Show what is live in a stage, since when, and the digests that would be promoted.

    Looking notes the digest of each image that stands by its tag: the soak of such a release begins no
    earlier than it was first looked at. So look after each deployment.

    Examples: kilo promote status --from dev · kilo promote status --from stage --json | jq .release
    """
    _, live, digests = _live(source)
    document = {
        "stage": source,
        "release": live.digest,
        "program": live.program,
        "committed": live.committed,
        "configuration": live.configuration,
        "update": live.update,
        "live_since": live.since,
        "digests": dict(digests.known),
        "unpinned": list(digests.unpinned),
        "moved": list(digests.moved),
        "trouble": live.trouble,
    }
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    since = (
        "not known"
        if live.since is None
        else f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(live.since))}"
    )
    typer.echo(f"release {live.digest[:16]}, live since {since} UTC")
    typer.echo(
        f"program {live.program or 'not known'}{'' if live.committed else ' with uncommitted changes'}"
    )
    rows = [(image, digests.known.get(image, "not known")) for image in live.images]
    print_table(("image", "digest"), rows)
    for said in (*digests.moved, *([live.trouble] if live.trouble else ())):
        typer.echo(said, err=True)


def check(source: From, to: To, as_json: AsJson = False) -> None:
    """Say whether what is live in a stage may be promoted, check by check.

    Each check names its query, value, bound, window and the time of its newest sample; stale or missing data
    fails. The soak began when exactly this release went live, and anew with each breach. An emergency that
    two others signed lets this very release pass; the checks are shown as they are.

    Exits with 1 when a check failed and no emergency is in force.

    Examples: kilo promote check --from dev --to stage · kilo promote check --from stage --to prod --json
    """
    outputs, live, digests = _live(source)
    settings = target_of(source, to)
    with measuring(outputs) as measure:
        checks = check_gate(measure, looking_at(outputs, 1), live, digests, gate_of(settings))
    with database() as connection:
        found = emergencies.in_force(connection, outputs, to, live.digest)
    failed = [each.name for each in checks if not each.passed]
    verdict = "passed" if not failed else "emergency" if found else "failed"
    document = gate_document(source, to, live, checks, verdict, found)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        print_checks(checks)
        if found:
            typer.echo(
                f"emergency until {found['until']}: {found['reason']} ({', '.join(found['approvers'])})"
            )
    if failed and not found:
        msg = f"{source} is not promoted to {to}: {', '.join(failed)}"
        raise CheckFailed(msg)


def emergency(  # noqa: PLR0917 - Typer passes options by name
    source: From,
    to: To,
    reason: Annotated[str, typer.Option(help="Why the gate can't be waited for; it is in the audit log.")],
    requester: Annotated[str, typer.Option("--as", help="Your name among field_encryption.principals.")],
    approver: Annotated[
        list[str], typer.Option(metavar="NAME=KEYFILE", help="Somebody else who signs; give it twice.")
    ],
    hours: Annotated[float, typer.Option(min=0.01, max=emergencies.LONGEST_HOURS, help="For how long.")] = 4,
) -> None:
    """Let the release that is live now pass its gate, signed by two others than whoever asks.

    It is for this release, this stage and these hours alone, and an entry of the audit log with both
    signatures, which `kilo fle audit verify` and every pack of evidence check again. It passes freezes too.

    Example: kilo promote emergency --from stage --to prod --reason 'incident 42: fix of the outage'
    --as ana --approver bo=bo.pem --approver cy=cy.pem
    """
    target_of(source, to)
    outputs, live, _ = _live(source)
    content = emergencies.content_of(source, to, live.digest, requester, reason, time.time() + hours * 3_600)
    digest = emergencies.digest_of(content)
    signed = [sign_as(outputs, each, PROMOTE_EMERGENCY, digest) for each in approver]
    with database() as connection:
        emergencies.declare(connection, outputs, content, signed)
    typer.echo(f"release {live.digest[:16]} may go to {to} until {content['until']}; it is in the audit log")


def gate_document(  # noqa: PLR0917
    source: str, to: str, live: Live, checks: list[Check], verdict: str, found: dict[str, Any] | None
) -> dict[str, Any]:
    """A gate as JSON."""
    return {
        "from": source,
        "to": to,
        "release": live.digest,
        "verdict": verdict,
        "checks": [each.document() for each in checks],
        "emergency": found,
    }


def print_checks(checks: list[Check]) -> None:
    """The checks' table."""
    now = time.time()
    rows: list[tuple[object, ...]] = []
    for each in checks:
        document, at = each.document(), each.figure.sampled_at
        rows.append(
            (
                each.name,
                Text(document["verdict"], style="green" if each.passed else "red"),
                document["shown"],
                document["bound"],
                each.window,
                "-" if at is None else f"{max(now - at, 0):.0f} s",
                document["reason"] or each.source,
            )
        )
    print_table(("check", "verdict", "figure", "bound", "window", "age", ""), rows, numbers=("figure", "age"))


def _live(stage: str) -> tuple[StackOutputs, Live, Digests]:
    project = find_project()
    outputs = stage_outputs(stage)
    live = read_live(read_history(stage, project), read_state(stage, project))
    digests = resolve(live, outputs)
    with database() as connection:
        digests = observe(connection, stage, live, digests)
    return outputs, live, digests


def target_of(source: str, to: str) -> Settings:
    """The settings of the stage that a release goes to.

    Raises:
        BadInput: no release goes from the one stage to the other.
    """
    project = find_project()
    wanted = read_stage_file(stage_file(project, to))
    steps = [each.partition("-")[0] for each in (source, to)]
    if any(step not in _ORDER for step in steps) or _ORDER.index(steps[1]) != _ORDER.index(steps[0]) + 1:
        msg = f"--to {to}: a release goes from dev to stage and from stage to prod, not from {source} to {to}"
        raise BadInput(msg)
    return wanted


def sign_as(outputs: StackOutputs, text: str, action: str, digest: str) -> approval.Approval:
    """The signature of ``NAME=KEYFILE`` under ``digest``.

    Raises:
        BadInput: it is not of that form, or not the key of that person.
    """
    name, separator, path = text.partition("=")
    if not separator:
        msg = f"--approver: {text!r} is not NAME=KEYFILE"
        raise BadInput(msg)
    return approval.sign(outputs, action, digest, name, load_private_key(Path(path)))
