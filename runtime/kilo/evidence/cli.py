"""``kilo evidence build | verify``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import psycopg
import typer
from psycopg.rows import TupleRow

from kilo.automation import read_history
from kilo.backup.stores import Lock, open_store
from kilo.contract import StackOutputs
from kilo.environment import AUDIT_KEY_VARIABLE, DATABASE_VARIABLE
from kilo.errors import BadInput, CheckFailed, KiloError
from kilo.evidence import build as building
from kilo.evidence import pack
from kilo.evidence.cleaning import Cleaner
from kilo.fle.audit.notes import public_bytes
from kilo.fle.audit.signatures import people_from, people_of
from kilo.fle.audit.store import open_store as open_audit
from kilo.fle.commands.audit import audit_key
from kilo.fle.commands.common import actor, database
from kilo.goals.cli import StageOption, duration, looking_at, measuring, stage_outputs
from kilo.project import locate_project

app = typer.Typer(no_args_is_help=True, help="Build and verify the acceptance evidence of a stage.")

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PULUMI_ACCESS_TOKEN", "GITHUB_TOKEN")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]


@app.command(
    epilog="Examples: kilo evidence build -s stage --since 14d --signing-key audit.pem · "
    "kilo evidence build -s dev --since 2026-02-16T00:00Z --output pack.zip --no-vault"
)
def build(  # noqa: PLR0917 - Typer passes options by name
    stage: StageOption,
    since: Annotated[str, typer.Option(help="A time such as 2026-02-16T00:00Z, or 24h, 14d back.")],
    signing_key: Annotated[
        Path | None, typer.Option(help="The audit key (PEM); else as `kilo fle audit checkpoint` finds it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. Default: a name with stage and time.")
    ] = None,
    soak_factor: Annotated[
        float,
        typer.Option(min=0.000001, max=1, help="By what soak times were multiplied; said in large letters."),
    ] = 1.0,
    gate: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `kilo promote check --json` said; again for more."),
    ] = None,
    vault: Annotated[bool, typer.Option(help="Put it under lock in the backup vault too.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Gather a stage's evidence into one signed file, and lock it away in the backup vault.

    The file holds a report, the raw data of every figure in it, the audit log with a checkpoint over it, and
    a manifest that is signed with the audit key. `kilo evidence verify` checks it without the stage.
    Needs the stage's Prometheus, the database of DATABASE_URL and the audit key. What can't be read is in the
    report as not known.
    """
    outputs = stage_outputs(stage)
    begin, now = _since(since), time.time()
    key = audit_key(signing_key, outputs)
    name = f"kilo-evidence-{stage}-{datetime.fromtimestamp(now, UTC):%Y%m%dt%H%M%Sz}.zip"
    path = output or Path(name)
    if path.exists():
        msg = f"--output {path}: there is such a file already, and evidence is never overwritten"
        raise BadInput(msg)
    updates = _updates(outputs)
    request = building.Request(
        outputs, begin, now, _program(updates), soak_factor, updates, _gates(gate or ())
    )
    with measuring(outputs) as measure:
        made = building.build(
            request,
            measure,
            looking_at(outputs, int(now - begin)),
            (open_audit(outputs.audit), _writing),
            key,
            Cleaner.of(_known_secrets()),
        )
    try:
        with path.open("xb") as file:
            file.write(made.data)
    except OSError as error:
        msg = f"--output {path}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
    stored: tuple[str, Lock] | None = None
    if vault:
        stored = building.lock_away(open_store(outputs.backups.primary), stage, name, made.data)
        building.record(_writing, actor(), made, stored, stage)
    result = {
        "file": str(path),
        "bytes": len(made.data),
        "manifest_sha256": made.manifest_sha256,
        "location": stored[0] if stored else None,
        "goals": dict(made.verdicts),
        "missing": list(made.missing),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    for missing in made.missing:
        typer.echo(f"not known: {missing}", err=True)
    typer.echo(f"{path}: {len(made.data):,} bytes, manifest {made.manifest_sha256}")
    if stored:
        location, lock = stored
        until = (
            f"until {lock.until:%Y-%m-%d %H:%M} UTC" if lock.until else "without an end that the store tells"
        )
        typer.echo(f"locked ({lock.mode}) {until} at {location}")


@app.command(
    epilog="Examples: kilo evidence verify pack.zip -s prod --public-key BASE64 --principal ana=BASE64 · "
    "kilo evidence verify pack.zip -s dev"
)
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pack.")],
    stage: StageOption,
    public_key: Annotated[
        str, typer.Option(help="The audit key's public half, base64. Default: from the stage's outputs.")
    ] = "",
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BASE64", help="The key of somebody who signs in the audit log; again for more."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a pack offline, and name what was altered, added or left out.

    Checked are the signature, every file, and the audit log's chain, checkpoint and people's signatures. The
    keys must come from elsewhere than the pack: from the reviewed configuration, or from the people.

    Exits with 1 when something does not hold, and with 2 when the file is no pack or was cut short.
    """
    people = people_from(principal or ())
    if public_key:
        public = public_bytes(public_key, "--public-key")
    else:
        outputs = stage_outputs(stage)
        public = public_bytes(outputs.field_encryption.audit_public_key, "field_encryption.audit_public_key")
        for name, keys in people_of(outputs).items():
            people.setdefault(name, []).extend(keys)
    try:
        if file.stat().st_size > pack.LARGEST_BYTES:
            msg = f"{file}: larger than any pack"
            raise BadInput(msg)
        data = file.read_bytes()
    except OSError as error:
        msg = f"{file}: can't be read ({error.strerror})"
        raise BadInput(msg) from error
    try:
        found = pack.check(data, stage, public, people)
    except BadInput as error:
        msg = f"{file}: {error}"
        raise BadInput(msg) from error
    result = {
        "stage": found.manifest.get("stage"),
        "built_at": found.manifest.get("built_at"),
        "program": found.manifest.get("program"),
        "soak_factor": found.manifest.get("soak_factor"),
        "files": len(found.members),
        "audit_entries": found.entries,
        "signatures": found.signatures,
        "problems": found.problems,
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif not found.problems:
        typer.echo(
            f"{file}: holds: {len(found.members)} files of stage {stage}, built {result['built_at']}, "
            f"program {result['program']}; {found.entries} entries of the audit log, "
            f"{found.signatures} signatures"
        )
        factor = float(found.manifest.get("soak_factor") or 1)
        if factor != 1:
            typer.echo(f"SOAK TIMES SCALED BY {factor:g}")
    if found.problems:
        raise CheckFailed("\n".join([f"{file}: does not verify:", *found.problems]))


def _gates(files: Sequence[Path]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for file in files:
        try:
            document = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            msg = f"--gate {file}: can't be read as JSON ({type(error).__name__})"
            raise BadInput(msg) from error
        if not (isinstance(document, dict) and {"from", "to", "verdict", "checks"} <= document.keys()):
            msg = f"--gate {file}: not what `kilo promote check --json` prints"
            raise BadInput(msg)
        found.append(document)
    return found


def _since(text: str) -> float:
    if text[-1:] in "smhd" and text[:-1].isdigit():
        return time.time() - duration(text, "--since")
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() >= time.time():
        msg = f"--since {text}: not a time in the past; use 2026-02-16T00:00Z, or 24h or 14d back"
        raise BadInput(msg)
    return at.timestamp()


def _updates(outputs: StackOutputs) -> list[dict[str, object]] | str:
    project = locate_project()
    if project is None:
        return "there is no checkout here, so the engine was not asked"
    try:
        return read_history(outputs.stage, project)
    except KiloError as error:
        return str(error)


def _program(updates: list[dict[str, object]] | str) -> str:
    """The commit of the newest update that succeeded, and whether more than it was deployed."""
    for update in updates if isinstance(updates, list) else ():
        environment = update.get("environment")
        if update.get("result") == "succeeded" and isinstance(environment, dict):
            dirty = " with uncommitted changes" if environment.get("git.dirty") == "true" else ""
            return f"{environment.get('git.head', 'unknown')}{dirty}"
    return "unknown"


def _known_secrets() -> list[str]:
    """Values of this environment that must be in no pack."""
    found = [os.environ.get(name, "") for name in _SECRETS]
    password = urlsplit(os.environ.get(DATABASE_VARIABLE, "")).password or ""
    found += [password, unquote(password)]
    pem = os.environ.get(AUDIT_KEY_VARIABLE, "")
    return [*found, *(line for line in pem.splitlines() if "-----" not in line)]


@contextmanager
def _writing() -> Generator[psycopg.Connection[TupleRow]]:
    with database() as connection:
        yield connection
