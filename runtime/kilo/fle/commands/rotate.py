"""``kilo fle rotate``: the steps of a rotation. docs/runbooks/fle-rotation.md is the runbook."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Annotated

import typer

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.fle.audit.notes import load_private_key
from kilo.fle.cipher import FieldCipher
from kilo.fle.commands.common import (
    AsJson,
    OutputsFile,
    PlanHash,
    Principal,
    SigningKey,
    actor,
    as_dicts,
    cipher,
    database,
    database_url,
    show,
    show_rows,
    stage,
)
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation.backfill import Progress
from kilo.fle.rotation.check import remaining
from kilo.fle.rotation.lookalikes import Place
from kilo.fle.rotation.plan import LEAST_SETTLE_SECONDS, Kind
from kilo.fle.rotation.record import find
from kilo.fle.rotation.steps import Rotations

app = typer.Typer(
    no_args_is_help=True,
    help="Rotate a tenant's data key: plan, approve, run, verify, finalize; or roll back.",
)


@app.command()
def plan(  # noqa: PLR0917 - Typer passes options by name
    tenant: Annotated[str, typer.Option(help="Whose key is rotated.")],
    principal: Principal,
    signing_key: SigningKey,
    kind: Annotated[
        Kind,
        typer.Option(
            help="rekey: a new key. adopt: encrypt plain values. release: decrypt. reindex: a new index key."
        ),
    ] = "rekey",
    settle_seconds: Annotated[
        int,
        typer.Option(help="How long processes may go on with what they have in memory; no less than that."),
    ] = LEAST_SETTLE_SECONDS,
    in_flight_days: Annotated[
        int | None,
        typer.Option(
            help="How long events under the old key may lie on the bus; by default as long as it keeps them.",
            min=0,
            max=365,
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="The only field to adopt or to release; repeat it. Of the tables' fields, all without it."
        ),
    ] = None,
    outputs: OutputsFile = None,
    as_json: AsJson = False,
) -> None:
    """Plan a rotation and print the hash that two others approve.

    \b
    kilo fle rotate plan --tenant acme --as ana --signing-key ana.pem
    kilo fle rotate plan --tenant acme --kind release --field phone --as ana --signing-key ana.pem
    kilo fle rotate plan --tenant acme --kind reindex --as ana --signing-key ana.pem
    """
    made = _rotations(outputs).plan(
        tenant,
        kind,
        principal,
        load_private_key(signing_key),
        settle_seconds,
        in_flight_days=in_flight_days,
        fields=field or (),
    )
    show({"plan": made.digest(), **made.model_dump(mode="json", exclude={"tables"})}, as_json=as_json)


@app.command()
def approve(
    plan_hash: PlanHash,
    principal: Principal,
    signing_key: SigningKey,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Approve rolling it back, where that lowers protection.")
    ] = False,
    outputs: OutputsFile = None,
) -> None:
    """Approve a plan by signing its hash; two others than the requester must.

    \b
    kilo fle rotate approve 561a370bcd9f --as bo --signing-key bo.pem
    kilo fle rotate approve 561a370bcd9f --rollback --as bo --signing-key bo.pem
    """
    rotations = _rotations(outputs)
    with database() as connection:
        full = find(connection, plan_hash).plan_hash
    key, action = load_private_key(signing_key), "approve-rollback" if rollback else "approve"
    signed = approvals.sign(rotations.outputs, action, full, principal, key)
    count = rotations.approve(full, signed, rollback=rollback)
    typer.echo(f"plan {full[:12]} has {count} of {approvals.REQUIRED} approvals")


@app.command()
def run(
    plan_hash: PlanHash,
    workers: Annotated[int, typer.Option(help="Processes.", min=1, max=64)] = 1,
    batch_rows: Annotated[int, typer.Option(help="Rows a transaction.", min=1, max=100_000)] = 2000,
    rows_per_second: Annotated[
        float | None, typer.Option(help="At most this many rows a second, all workers together.", min=1)
    ] = None,
    outputs: OutputsFile = None,
) -> None:
    """Start or resume: make the new key, point writers at it, and re-encrypt every row.

    It can be killed and given again at any time, and run on several machines at once.

    \b
    kilo fle rotate run 561a370bcd9f
    kilo fle rotate run 561a370bcd9f --workers 4 --rows-per-second 5000
    """
    found = stage(outputs)
    rotation = _rotations(outputs).start(plan_hash, actor())
    each = rows_per_second / workers if rows_per_second else None
    others = [
        multiprocessing.get_context("spawn").Process(
            target=_rewrite_rows, args=(found, database_url(), plan_hash, batch_rows, each), daemon=True
        )
        for _ in range(workers - 1)
    ]
    for process in others:
        process.start()
    with database() as connection:
        total = remaining(connection, cipher(found, ""), rotation)
    done, failed = _rotations(outputs).run(
        plan_hash, actor(), _progress(total, workers), batch_rows, rows_per_second=each
    )
    for process in others:
        process.join()
    if others and done:
        # A last look: what another worker was still doing when this one found nothing left.
        done, failed = _rotations(outputs).run(plan_hash, actor(), _progress(0, 1), batch_rows)
    for line in failed[:20]:
        typer.echo(line, err=True)
    if failed:
        msg = f"{len(failed)} values can't be decrypted and were left as they are"
        if rotation.plan.kind in {"adopt", "release"}:
            msg += "; for one that is plain and only looks encrypted: `kilo fle rotate take-as-plain`"
        raise CheckFailed(msg)
    typer.echo("done: now verify it" if done else "paused")


@app.command("take-as-plain")
def take_as_plain(  # noqa: PLR0917 - Typer passes options by name
    plan_hash: PlanHash,
    table: Annotated[str, typer.Option(help="The table, as the message names it.")],
    field: Annotated[str, typer.Option(help="The field.")],
    row: Annotated[str, typer.Option(help="The row's identity.")],
    principal: Principal,
    signing_key: SigningKey,
    pointer: Annotated[
        str | None,
        typer.Option(
            help="Inside a document: the object that holds the field, as JSON pointer; '' is the whole."
        ),
    ] = None,
    outputs: OutputsFile = None,
) -> None:
    """Decide that a value which looks encrypted, and opens under no key, is plain; two others must.

    Look at the row first. `run` then encrypts it as it stands (adopt), or leaves it (release, rolling back).

    \b
    kilo fle rotate take-as-plain 561a370bcd9f --table customers --field email --row 17 \\
        --as bo --signing-key bo.pem
    """
    place = Place(table, field, row, pointer)
    count = _rotations(outputs).take_as_plain(plan_hash, place, principal, load_private_key(signing_key))
    typer.echo(f"{place} is taken as plain by {count} of {approvals.REQUIRED}; then give run again")


@app.command()
def pause(plan_hash: PlanHash, outputs: OutputsFile = None) -> None:
    """Stop the workers after their batch. Readers and writers go on; run resumes.

    \b
    kilo fle rotate pause 561a370bcd9f
    """
    _rotations(outputs).pause(plan_hash, actor())


@app.command()
def status(
    plan_hash: Annotated[str, typer.Argument(metavar="[PLAN]", help="One rotation; all without it.")] = "",
    outputs: OutputsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show rotations: state, approvals, rows done and left, rate, time left.

    \b
    kilo fle rotate status
    kilo fle rotate status 561a370bcd9f --json
    """
    with database() as connection:
        rows = as_dicts(connection.execute(_STATUS, {"plan": plan_hash}))
    if plan_hash and rows:
        with database() as connection:
            rotation = find(connection, plan_hash)
            rows[0]["left"] = _rotations(outputs).left(connection, rotation)
        rate = rows[0]["rows_per_second"]
        rows[0]["eta_seconds"] = round(rows[0]["left"] / rate) if rate else None
    show_rows("Rotations", rows, as_json=as_json)


@app.command()
def verify(plan_hash: PlanHash, outputs: OutputsFile = None, as_json: AsJson = False) -> None:
    """Decrypt every value of the tenant: all must lie under the new key and read as before the rotation.

    Each value that the rotation converted is compared with what it was: `same` of the `converted` ones are.
    The others were deleted or written since, as `written_since` ones were.

    \b
    kilo fle rotate verify 561a370bcd9f
    """
    counts = _rotations(outputs).verify(plan_hash, actor())
    show(counts, as_json=as_json)
    if not as_json:
        of = (
            f"{counts['converted']} converted values"
            if "converted" in counts
            else f"{counts['values']} tokens"
        )
        typer.echo(f"same as before: {counts['same']} of {of}")


@app.command()
def finalize(
    plan_hash: PlanHash, principal: Principal, signing_key: SigningKey, outputs: OutputsFile = None
) -> None:
    """Refuse the old key from now on and schedule its destruction. There is no way back.

    \b
    kilo fle rotate finalize 561a370bcd9f --as ana --signing-key ana.pem
    """
    _rotations(outputs).finalize(plan_hash, principal, load_private_key(signing_key))
    typer.echo("finalized: the old key is refused, and destroyed after the waiting period")


@app.command()
def rollback(
    plan_hash: PlanHash,
    principal: Principal,
    signing_key: SigningKey,
    batch_rows: Annotated[int, typer.Option(help="Rows a transaction.", min=1, max=100_000)] = 2000,
    outputs: OutputsFile = None,
) -> None:
    """Go back to the old key: point writers at it, and re-encrypt every row under it.

    Give it again until it says that it is rolled back: writers may use the new key for a while yet.

    \b
    kilo fle rotate rollback 561a370bcd9f --as ana --signing-key ana.pem
    """
    rotations = _rotations(outputs)
    rotations.begin_rollback(plan_hash, principal, load_private_key(signing_key))
    with database() as connection:
        state = find(connection, plan_hash).state
    if state == "rolling-back":
        rotations.run(plan_hash, actor(), _progress(0, 1), batch_rows)
        rotations.end_rollback(plan_hash, actor())
    typer.echo("rolled back")


_STATUS = """
SELECT left(r.plan_hash, 12) AS plan, r.tenant, r.plan::jsonb ->> 'kind' AS kind, r.state,
       (SELECT count(*) FROM fle_rotation_approvals a
        WHERE a.plan_hash = r.plan_hash AND a.action = 'approve') AS approvals,
       coalesce(sum(b.rows_changed), 0)::bigint AS rows_done,
       (sum(b.rows_changed) FILTER (WHERE b.at > now() - interval '1 minute')
        / greatest(extract(epoch FROM least(now() - min(b.at), interval '1 minute')), 1)
       )::bigint AS rows_per_second
FROM fle_rotations r LEFT JOIN fle_rotation_batches b ON b.plan_hash = r.plan_hash
WHERE %(plan)s = '' OR r.plan_hash LIKE %(plan)s || '%%'
GROUP BY r.plan_hash ORDER BY max(r.created_at) DESC
"""


def _rotations(outputs: Path | None) -> Rotations:
    found = stage(outputs)
    return Rotations(found, database_url(), cipher(found, ""))


def _progress(total: int, workers: int):
    started = last = time.monotonic()

    def on_batch(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 1:
            return
        last = now
        rate = progress.changed / (now - started)
        left = max(0, total - progress.changed * workers)
        eta = f", about {left / (rate * workers):.0f} s left" if total and rate else ""
        typer.echo(f"{progress.changed} rows by this worker, {rate:.0f}/s{eta}", err=True)

    return on_batch


def _rewrite_rows(
    outputs: StackOutputs, url: str, plan_hash: str, batch_rows: int, rows_per_second: float | None
) -> None:

    rotations = Rotations(outputs, url, FieldCipher.from_outputs(outputs, url, table="", principal="cli"))
    rotations.run(plan_hash, actor(), lambda _: None, batch_rows, rows_per_second)
