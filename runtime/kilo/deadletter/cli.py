"""``kilo dlq``: dead letters."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import Progress

from kilo.contract import load_outputs
from kilo.deadletter.store import DONE_STATES, OPEN_STATES, DeadLetter, DeadLetters, Filter
from kilo.environment import database_url
from kilo.errors import BadInput, Unreachable

app = typer.Typer(no_args_is_help=True, help="Dead letters: look at them, replay, edit or discard them.")

Kind = Annotated[str | None, typer.Option(help="Only events of this kind.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's.")]
Error = Annotated[str | None, typer.Option(help="Only with this text in the error, or this stack digest.")]
Since = Annotated[datetime | None, typer.Option(help="Only parked at or after this time (UTC).")]
Until = Annotated[datetime | None, typer.Option(help="Only parked before this time (UTC).")]
Ids = Annotated[list[int] | None, typer.Argument(help="Numbers of dead letters; all that match without.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Rate = Annotated[float, typer.Option(min=0.1, help="At most so many a second.")]


@app.callback()
def _group() -> None:
    """Dead letters: look at them, replay, edit or discard them."""


@app.command("list")
def list_(  # noqa: PLR0917  options, given by name
    kind: Kind = None,
    tenant: Tenant = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="Those that are dealt with too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first.

    Example:  kilo dlq list --kind order.created --error timeout
    """
    states = (*OPEN_STATES, *DONE_STATES) if every else OPEN_STATES
    which = Filter((), kind, tenant, error, None, since, until, states)
    with _letters() as letters:
        found = list(letters.find(which, limit))
    if as_json:
        typer.echo(json.dumps([_as_json(each) for each in found], default=str, indent=2))
        return
    if not found:
        typer.echo("no dead letters")
        return
    # Two lines a letter: in the columns of a table 80 characters wide, ids and errors would be cut.
    for each in found:
        about = f"{each.kind} of {each.tenant}: {each.aggregate} {each.aggregate_id}"
        typer.echo(f"{each.id:<8} {each.status:12} {about}")
        attempts = "1 attempt" if each.attempts == 1 else f"{each.attempts} attempts"
        typer.echo(f"         since {each.first_at:%Y-%m-%d %H:%M:%S}, {attempts}  {each.error}".rstrip())


@app.command()
def show(letter_id: Annotated[int, typer.Argument(help="Its number.")], as_json: Json = False) -> None:
    """Show one dead letter whole, as it lies: sensitive fields stay encrypted.

    Example:  kilo dlq show 17
    """
    with _letters() as letters:
        letter = _one(letters, letter_id)
        behind, edits = letters.behind(letter), letters.edits(letter)
    if as_json:
        typer.echo(
            json.dumps(
                {**_as_json(letter), "held_behind": behind, "waiting_behind": behind, "edits": edits},
                default=_text,
            )
        )
        return
    console = Console()
    for name, value in _as_json(letter).items():
        if name == "headers":
            for header, content in letter.headers.items():
                _print(console, "header", f"{header}: {content}")
        else:
            _print(console, name, value)
    _print(console, "held behind it", f"{behind} later events of its ordering key")
    for at, by, before, after in edits:
        _print(console, "edited", f"{at} by {by}\n  before {_text(before)}\n  after  {_text(after)}")


@app.command()
def edit(
    letter_id: Annotated[int, typer.Argument(help="Its number.")],
    payload: Annotated[
        str, typer.Option(help="The new payload as JSON text; - reads it from standard input.")
    ],
    by: Annotated[str | None, typer.Option(help="Who does it; your user name by default.")] = None,
    as_json: Json = False,
) -> None:
    """Replace a dead letter's payload; before and after are recorded. Replay it then.

    Sensitive fields stay as they lie: the stage's outputs (KILO_OUTPUTS) say which those are.

    Example:  kilo dlq edit 17 --payload '{"total": 12}'
    """
    text = sys.stdin.read() if payload == "-" else payload
    tenants = load_outputs().tenants
    with _letters() as letters:
        letter = _one(letters, letter_id)
        tenant = tenants.get(letter.tenant)
        fields = frozenset(tenant.encrypted_fields if tenant else ())
        letters.edit(letter, text, by or getpass.getuser(), fields)
    typer.echo(json.dumps({"edited": letter_id}) if as_json else f"edited {letter_id}")


@app.command()
def replay(  # noqa: PLR0917  options, given by name
    ids: Ids = None,
    kind: Kind = None,
    tenant: Tenant = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    rate: Rate = 100.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have parked events handled again; each has one effect, however often this is run.

    Those that are held behind them follow by themselves.

    Example:  kilo dlq replay --kind order.created --rate 50 --dry-run
    """
    which = Filter(tuple(ids or ()), kind, tenant, error, None, since, until, ("parked",))
    _each("replay", which, rate, DeadLetters.replay, dry_run=dry_run, as_json=as_json)


@app.command()
def discard(  # noqa: PLR0917  options, given by name
    ids: Ids = None,
    kind: Kind = None,
    tenant: Tenant = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    rate: Rate = 1000.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give parked events up for good; those held behind them are handled then.

    Example:  kilo dlq discard 17 18
    """
    which = Filter(tuple(ids or ()), kind, tenant, error, None, since, until, ("parked",))
    if not dry_run and not any((ids, kind, tenant, error, since, until)):
        msg = "name the dead letters to discard: numbers, --kind, --tenant, --error, --since or --until"
        raise BadInput(msg)
    _each("discard", which, rate, DeadLetters.discard, dry_run=dry_run, as_json=as_json)


@app.command()
def prune(  # noqa: PLR0917  options, given by name
    days: Annotated[float, typer.Option(min=0, help="Those dealt with longer ago than this.")] = 30.0,
    kind: Kind = None,
    tenant: Tenant = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[float, typer.Option(min=1, help="At most so many a second.")] = 10_000.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters that were replayed or discarded; parked ones stay.

    Example:  kilo dlq prune --days 30 --dry-run
    """
    which = Filter((), kind, tenant, error, None, since, until, DONE_STATES)
    age = timedelta(days=days)
    done = 0
    with _letters() as letters, _progress() as progress:
        found = letters.prunable(age, which)
        task = progress.add_task("prune", total=found)
        for count in () if dry_run else letters.prune(age, which):
            done += count
            progress.advance(task, count)
            time.sleep(count / rate)
    if as_json:
        typer.echo(json.dumps({"matched": found, "pruned": done, "dry_run": dry_run}))
    else:
        typer.echo(f"would prune {found}" if dry_run else f"pruned {done}")


@contextmanager
def _letters() -> Generator[DeadLetters]:
    try:
        with psycopg.connect(database_url(), autocommit=True, connect_timeout=10) as connection:
            yield DeadLetters(connection)
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _one(letters: DeadLetters, letter_id: int) -> DeadLetter:
    which = Filter((letter_id,), states=(*OPEN_STATES, *DONE_STATES))
    letter = next(iter(letters.find(which)), None)
    if letter is None:
        msg = f"no dead letter {letter_id}: `kilo dlq list --all` has their numbers"
        raise BadInput(msg)
    return letter


def _check_there(letters: DeadLetters, numbers: tuple[int, ...]) -> None:
    """Refuse numbers of letters that are not there; one that is dealt with already is no mistake.

    Raises:
        BadInput: naming them.
    """
    there = letters.ids(Filter(numbers, states=(*OPEN_STATES, *DONE_STATES))) if numbers else ()
    missing = sorted(set(numbers) - set(there))
    if missing:
        msg = f"no dead letter {', '.join(map(str, missing))}: `kilo dlq list --all` has their numbers"
        raise BadInput(msg)


def _print(console: Console, name: str, value: object) -> None:
    console.print(f"{name:14} {value}", highlight=False, markup=False, soft_wrap=True)


def _each(
    what: str,
    which: Filter,
    rate: float,
    do: Callable[[DeadLetters, DeadLetter], bool],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    done = 0
    with _letters() as letters, _progress() as progress:
        _check_there(letters, which.ids)
        found = letters.ids(which)
        task = progress.add_task(what, total=len(found))
        for each in () if dry_run else letters.find(which):
            done += do(letters, each)
            time.sleep(1 / rate)
            progress.advance(task)
    if as_json:
        typer.echo(json.dumps({"matched": len(found), what: done, "dry_run": dry_run}))
    elif dry_run:
        typer.echo(f"would {what} {len(found)}: {', '.join(map(str, found[:20]))}")
    else:
        typer.echo(f"{what}: {done} of {len(found)}")


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    names = [name for name in DeadLetter.__slots__ if name != "payload"]
    values = {name: getattr(letter, name) for name in names}
    return {**values, "status": letter.status, "payload": _text(letter.payload)}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
