"""Brings a service to a newer template: Copier's three-way merge, in the service's own git tree.

The tree is clean before, so that git shows and undoes what was done. What fails or is interrupted is taken
back; what was killed is told by the next run, which can't know whose the changes are by then. Whose change
wins is git's rule: nothing of the service is lost silently, and nothing of the template either.
"""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from copier import run_copy, run_update

from kilo.errors import BadInput, CheckFailed
from kilo.scaffold.template import ANSWERS, Service, carried_out, check_version, git, load, pinned, source_of

_MARK = "kilo-update"
_UNMERGED = frozenset({"DD", "AU", "UD", "UA", "DU", "AA", "UU"})
_LINK = "120000"


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did.

    Attributes:
        changed: the files that it changed, from the service's directory.
        left_out: what the template changed in files that the service has removed or renamed.
    """

    changed: tuple[str, ...]
    left_out: tuple[str, ...]


def update(
    service: Service, ref: str | None, answers: Mapping[str, Any], template: str | None = None
) -> Updated:
    """Bring ``service`` to a newer template, its own changes kept.

    Args:
        service: as it was loaded.
        ref: a tag or commit of the template; the newest version by default, of a path its last commit.
        answers: to questions that are answered anew.
        template: the source that the answers name, where it is another than the service was made from.

    Raises:
        BadInput: its directory is no git repository, has changes that are not committed or links that lead
            out of it, or its answers are not those of the template that it was made from.
        CheckFailed: both changed the same; the files have markers, as after ``git merge``. Or an update was
            killed here.
        Unreachable: the template can't be had.
    """
    where = service.directory.resolve()
    if git(where, "rev-parse", "--is-inside-work-tree").strip() != "true":
        msg = f"{where}: no git repository, so that an update could not be looked at and undone: git init"
        raise BadInput(msg)
    source = _checked_source(service, template)
    with _alone(where) as mark:
        _check_tree(where, mark)
        mark.write_text(git(where, "rev-parse", "--show-prefix"), encoding="utf-8")
        try:
            carried_out(
                lambda: run_update(
                    where,
                    data=dict(answers),
                    vcs_ref=pinned(source, ref),
                    defaults=True,
                    skip_answered=True,
                    overwrite=True,
                    quiet=True,
                ),
                source,
            )
            left_out, kept = _compared(service, load(where), source)
        except BaseException:
            # It was clean before, so all that is there now is this run's.
            git(where, "restore", "--source=HEAD", "--staged", "--worktree", "--", ".")
            git(where, "clean", "-fdq", "--", ".")
            mark.unlink()
            raise
        mark.unlink()
    states = _states(where)
    conflicts = sorted(name for name, state in states.items() if state in _UNMERGED)
    said: list[str] = []
    if conflicts:
        said.append(
            f"{where}: both the template and the service changed {', '.join(conflicts)}; solve what is"
            " between <<<<<<< and >>>>>>>, then git add and commit"
        )
    if kept:
        said.append(
            f"{where}: the template no longer has {', '.join(kept)}, which the service changed; kept, "
            "git rm removes it"
        )
    if said:
        raise CheckFailed("\n".join([*said, f"to undo the update: {_undoing(where)}"]))
    return Updated(tuple(sorted(states)), left_out)


@contextmanager
def _alone(where: Path) -> Generator[Path]:
    """The file that says that an update is under way; locked, so that there is one at a time.

    Raises:
        CheckFailed: there is one.
    """
    directory = Path(git(where, "rev-parse", "--absolute-git-dir").strip())
    with (directory / f"{_MARK}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{where}: another update is under way in this repository; wait until it is done"
            raise CheckFailed(msg) from error
        yield directory / _MARK


def _undoing(where: Path) -> str:
    return f"cd {where} && git restore --source=HEAD --staged --worktree . && git clean -fd ."


def _check_tree(where: Path, mark: Path) -> None:
    if _states(where):
        if mark.exists():
            msg = f"{where}: an update was killed and left half of it; to undo it: {_undoing(where)}"
            raise CheckFailed(msg)
        msg = f"{where}: has changes that are not committed; commit or stash them first"
        raise BadInput(msg)
    inside = where.resolve()
    for line in git(where, "ls-files", "--stage", "-z").split("\0"):
        mode, _, name = line.partition("\t")
        if mode.startswith(_LINK) and not (where / name).resolve().is_relative_to(inside):
            msg = f"{where / name}: a link that leads out of the service; an update might follow it"
            raise BadInput(msg)


def _checked_source(service: Service, template: str | None) -> str:
    """Where the template is taken from, which whoever changes the answers could have turned elsewhere."""
    place = service.directory / ANSWERS
    source = str(service.answers["_src_path"])
    source_of(source, f"{place}: _src_path")
    check_version(source, service.version, f"{place}: _commit")
    first = git(service.directory, "log", "--diff-filter=A", "--format=%H", "--", ANSWERS).split()
    made_from = source
    if first:
        try:
            made_from = str(
                yaml.safe_load(git(service.directory, "show", f"{first[-1]}:./{ANSWERS}"))["_src_path"]
            )
        except (yaml.YAMLError, KeyError, TypeError):
            made_from = ""
    if source not in (made_from, template):
        msg = (
            f"{place}: _src_path: {source}, but the service was made from {made_from or 'an unknown one'};"
            f" where that is meant: --template {source}"
        )
        raise BadInput(msg)
    return source


def _states(where: Path) -> dict[str, str]:
    """What git says of each file that is not as committed, by its name from ``where``."""
    prefix = git(where, "rev-parse", "--show-prefix").rstrip("\n")
    lines = git(
        where, "status", "--porcelain", "--no-renames", "-z", "--untracked-files=all", "--", "."
    ).split("\0")
    return {line[3:].removeprefix(prefix): line[:2] for line in lines if line}


def _compared(before: Service, after: Service, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of the template did not arrive, and what of the service went with a file of the template's.

    The second is put back: Copier removes a file that the template no longer has, whoever changed it.
    """
    where = before.directory
    with tempfile.TemporaryDirectory() as scratch:
        old, new = (
            _rendered(each, source, Path(scratch, name)) for name, each in (("old", before), ("new", after))
        )
    left_out = tuple(
        sorted(
            name
            for name, content in new.items()
            if content != old.get(name) and (not (where / name).is_file() or (where / name).is_symlink())
        )
    )
    kept: list[str] = []
    for name in sorted(old.keys() - new.keys()):
        held = _committed(where, name)
        if held not in (None, old[name]):
            git(where, "restore", "--source=HEAD", "--staged", "--worktree", "--", name)
            kept.append(name)
    return left_out, tuple(kept)


def _committed(where: Path, name: str) -> bytes | None:
    """The file as it is in the last commit; None when it is not."""
    done = subprocess.run(["git", "-C", where, "show", f"HEAD:./{name}"], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _rendered(service: Service, source: str, directory: Path) -> dict[str, bytes]:
    """The files of the template as the service's answers make them."""
    data = {name: value for name, value in service.answers.items() if not name.startswith("_")}
    carried_out(
        lambda: run_copy(
            source, directory, data=data, vcs_ref=service.version, defaults=True, quiet=True, overwrite=True
        ),
        source,
    )
    return {
        str(each.relative_to(directory)): each.read_bytes()
        for each in directory.rglob("*")
        if each.is_file() and each.name != ANSWERS
    }
