"""``kilo preview-diff``: what deploying the working tree would change on top of some commit's program.

The base's program is carried out in a throw-away place, and the head's is previewed on the state that it
made: no credentials, no running stage.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kilo.changes.comment import render_comment, render_json
from kilo.changes.preview import Preview, parse_events
from kilo.errors import BadInput, CheckFailed
from kilo.project import find_project
from sandbox.rehearsal import Rehearsal
from sandbox.stages import stages


def preview_diff(
    *,
    base: Annotated[str, typer.Option(help="The commit, branch or tag that is deployed now.")] = "HEAD",
    stage: Annotated[
        list[str] | None, typer.Option("--stage", "-s", help="A stage; all of them when none is named.")
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="STAGE=FILE: take the engine's own preview of a stage, made against its real state with "
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true pulumi preview --json.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, which is the default.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Cut nothing: for a file, where Markdown is for a comment.")
    ] = False,
) -> None:
    """Say what deploying the working tree would change, the dangerous first.

    Exits with 1 when a program, a provider or a mandatory policy refuses it.

    Examples:

      kilo preview-diff --base main -s prod

      kilo preview-diff --base v0.1.0 --json | jq '.prod.changes[] | select(.dangers != [])'

      kilo preview-diff --events prod=prod.events
    """
    if as_json and markdown:
        msg = "--json and --markdown: choose one"
        raise BadInput(msg)
    given = dict(_stage_and_file(item) for item in events or ())
    wanted = stage or ([] if given else stages(find_project()))
    found = {name: parse_events(_read(file)) for name, file in given.items()}
    if wanted:
        found |= differences(find_project(), base, wanted)
    typer.echo(render_json(found) if as_json else render_comment(found, limited=not full), nl=as_json)
    if any(preview.errors for preview in found.values()):
        raise typer.Exit(1)


def differences(project: Path, base: str, wanted: Sequence[str]) -> dict[str, Preview]:
    """By stage, what the program in ``project`` changes on the state of the program of commit ``base``.

    Raises:
        BadInput: there is no such commit or stage.
        CheckFailed: the base's program can't be carried out.
    """
    known = stages(project)
    if unknown := [name for name in wanted if name not in known]:
        msg = f"--stage {unknown[0]}: there is no Pulumi.{unknown[0]}.yaml; stages here: {', '.join(known)}"
        raise BadInput(msg)
    found: dict[str, Preview] = {}
    with checkout(project, base) as source:
        for name in wanted:
            found[name] = _difference(source, project, base, name)
    return found


def _difference(source: Path, project: Path, base: str, stage: str) -> Preview:
    # A place a stage: on the clouds each has an account of its own, and names may be the same in two.
    with Rehearsal() as rehearsal:
        # A stage that the base does not have begins from nothing.
        if (source / f"Pulumi.{stage}.yaml").is_file():
            _say(f"{stage}: carrying out {base}")
            rehearsal.carry_out(source, stage)
        _say(f"{stage}: previewing the working tree")
        return changes_of(rehearsal, project, stage)


def changes_of(rehearsal: Rehearsal, project: Path, stage: str) -> Preview:
    """What the program in ``project`` changes of the rehearsed stage, all that it would delete among it.

    Raises:
        BadInput: the stage has no file there.
        CheckFailed: the engine fails without saying what is wrong with the program.
    """
    found = _previewed(rehearsal, project, stage)
    if not found.stopped_by_protection:
        return found
    # The engine stops at the first that it may not delete, and what lies behind would go unseen.
    with rehearsal.unprotected(project, stage) as protected:
        whole = _previewed(rehearsal, project, stage)
    changes = tuple(replace(change, protected=change.urn in protected) for change in whole.changes)
    return replace(whole, changes=changes, errors=(*found.errors, *whole.errors))


def _previewed(rehearsal: Rehearsal, project: Path, stage: str) -> Preview:
    said = rehearsal.preview(project, stage)
    found = parse_events(said.events)
    if said.refused and not found.errors:
        msg = f"{stage}: the preview failed: {said.said.strip()}"
        raise CheckFailed(msg)
    return found


@contextmanager
def checkout(project: Path, commit: str) -> Generator[Path]:
    """The files of a commit in a temporary folder, with the project's own virtual environment.

    Raises:
        BadInput: the commit is not there.
    """
    done = subprocess.run(
        ["git", "-C", str(project), "archive", "--format=tar", f"{commit}^{{commit}}"],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else "no reason given"
        msg = f"--base {commit}: git does not have it ({reason}); fetch it first"
        raise BadInput(msg)
    with tempfile.TemporaryDirectory(prefix="kilo-base-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / ".venv").symlink_to(sys.prefix)
        yield Path(folder)


def _stage_and_file(item: str) -> tuple[str, Path]:
    name, separator, file = item.partition("=")
    if not separator or not name or not file:
        msg = f"--events {item}: give a stage and a file, as in prod=prod.events"
        raise BadInput(msg)
    return name, Path(file)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--events {file}: can't be read ({error})"
        raise BadInput(msg) from error


def _say(text: str) -> None:
    typer.echo(text, err=True)
