"""``kilo fle audit``: signed checkpoints, verification from outside, exports."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kilo.contract import StackOutputs
from kilo.environment import AUDIT_KEY_VARIABLE
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import Entry, leaf_hash, read, standing_still
from kilo.fle.audit.notes import load_private_key, private_key, public_bytes
from kilo.fle.audit.signatures import people_from, people_of
from kilo.fle.audit.states import check_states
from kilo.fle.audit.store import FolderStore, open_store
from kilo.fle.audit.verify import EXPORTED_LOG, check, lines_of
from kilo.fle.audit.verify import checkpoint as make_checkpoint
from kilo.fle.audit.verify import export as export_log
from kilo.fle.commands.common import AsJson, OutputsFile, database, show, stage

app = typer.Typer(no_args_is_help=True, help="Sign checkpoints of the audit log, and verify it from outside.")

KEY_FILE_VARIABLE = "KILO_FLE_AUDIT_KEY_FILE"


@app.command()
def checkpoint(
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help=f"Ed25519 key (PEM). Default: from {KEY_FILE_VARIABLE} (its file) or {AUDIT_KEY_VARIABLE}."
        ),
    ] = None,
    outputs: OutputsFile = None,
) -> None:
    """Sign the log as it stands and put it into the stage's object-locked bucket.

    \b
    kilo fle audit checkpoint --signing-key audit.pem
    """
    found = stage(outputs)
    key = audit_key(signing_key, found)
    with database() as connection:
        made = make_checkpoint(connection, open_store(found.audit), found.stage, key)
    typer.echo(
        "nothing new since the last checkpoint" if made is None else f"checkpoint at {made.size} entries"
    )


@app.command()
def verify(  # noqa: PLR0917 - Typer passes options by name
    export: Annotated[
        Path | None,
        typer.Option(help="Verify this export, offline, instead of the stage."),
    ] = None,
    public_key: Annotated[str, typer.Option(help="Ed25519, base64. Default: from the stack outputs.")] = "",
    stage_name: Annotated[str, typer.Option("--stage", help="With --export: the stage's name.")] = "",
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BASE64",
            help="The Ed25519 key of somebody who signs; repeat it. It adds to those of the stack outputs.",
        ),
    ] = None,
    outputs: OutputsFile = None,
    as_json: AsJson = False,
) -> None:
    """Check chain, checkpoints, store and people's signatures, and name each entry that does not hold.

    Named is what was altered, dropped or reordered, a signature that is missing or wrong, and a step that
    two others had not approved. To trust nobody here, an auditor brings the checkpoint key and the people's
    keys from elsewhere: from the history of the stage's reviewed configuration, or from the people.

    \b
    kilo fle audit verify
    kilo fle audit verify --export ./audit --stage prod --public-key BASE64 --principal ana=BASE64
    """
    given = people_from(principal or ())
    if export is not None:
        if not export.is_dir():
            msg = f"--export: {export} is not a folder; make one with `kilo fle audit export`"
            raise BadInput(msg)
        if not (public_key and stage_name):
            msg = "--public-key and --stage are needed with --export: a log can't vouch for its own key"
            raise BadInput(msg)
        key = public_bytes(public_key, "--public-key")
        report = check(FolderStore(export), stage_name, key, given, _exported(export))
    else:
        found = stage(outputs)
        key = public_bytes(
            public_key or found.field_encryption.audit_public_key, "field_encryption.audit_public_key"
        )
        people = people_of(found)
        for name, keys in given.items():
            people.setdefault(name, []).extend(keys)
        with database() as connection:
            with standing_still(connection):
                entries = read(connection)
                contradictions = check_states(connection, entries)
            report = check(open_store(found.audit), found.stage, key, people, entries)
            report.problems += contradictions
    result = {
        "entries": report.entries,
        "checkpoints": report.checkpoints,
        "not yet in a checkpoint": report.uncovered,
        "signatures of people": report.signatures,
        "problems": len(report.problems),
    }
    show({**result, "problems": report.problems} if as_json else result, as_json=as_json)
    if report.problems:
        raise CheckFailed("\n".join(["the audit log does not verify:", *report.problems]))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    outputs: OutputsFile = None,
) -> None:
    """Copy checkpoints, stored entries and the database's log to a folder for an auditor who is offline.

    \b
    kilo fle audit export ./audit
    """
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder}: is not empty"
        raise BadInput(msg)
    found = stage(outputs)
    with database() as connection:
        count = export_log(connection, open_store(found.audit), FolderStore(folder))
    typer.echo(f"{count} entries exported to {folder}")


def audit_key(path: Path | None, outputs: StackOutputs) -> Ed25519PrivateKey:
    """The key that signs checkpoints, from a file or the environment.

    Raises:
        BadInput: there is none, or it is not the stage's.
    """
    key = _signing_key(path)
    if b64encode(key.public_key().public_bytes_raw()).decode() != outputs.field_encryption.audit_public_key:
        msg = "--signing-key: not the key whose public half is field_encryption.audit_public_key"
        raise BadInput(msg)
    return key


def _signing_key(path: Path | None) -> Ed25519PrivateKey:
    file, pem = os.environ.get(KEY_FILE_VARIABLE, ""), os.environ.get(AUDIT_KEY_VARIABLE, "")
    if path or file:
        return load_private_key(path or Path(file))
    if pem:
        return private_key(pem.encode(), AUDIT_KEY_VARIABLE)
    msg = f"--signing-key: not given, and neither {KEY_FILE_VARIABLE} nor {AUDIT_KEY_VARIABLE} is set"
    raise BadInput(msg)


def _exported(folder: Path) -> list[Entry] | None:
    path = folder / EXPORTED_LOG
    if not path.is_file():
        return None
    lines = lines_of(FolderStore(folder).read(EXPORTED_LOG))
    return [Entry(seq, text, leaf_hash(text)) for seq, text in enumerate(lines)]
