"""What was released of a folder's schemas: its file ``recorded.lock``, or the folder at a commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kilo.errors import BadInput, Unreachable
from kilo.schemas.folder import RECORDED, EventSchemas, parse_folder


def read_recorded(folder: Path) -> EventSchemas | None:
    """The schemas in ``recorded.lock``; none without that file.

    Raises:
        BadInput: it is not what :func:`write_recorded` writes.
    """
    path = folder / RECORDED
    try:
        kinds = json.loads(path.read_text(encoding="utf-8"))["kinds"]
        texts = {f"{kind}.json": json.dumps(document) for kind, document in kinds.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        msg = f"{path}: not what `kilo events record` writes; restore it from git"
        raise BadInput(msg) from error
    return parse_folder(str(path), texts)


def write_recorded(folder: Path, schemas: EventSchemas) -> bool:
    """Write ``recorded.lock``; whether it differs from what was there.

    Raises:
        BadInput: the folder takes no file.
    """
    path = folder / RECORDED
    kinds = {kind: each.document for kind, each in schemas.items()}
    text = json.dumps({"kinds": kinds}, indent=1, sort_keys=True, ensure_ascii=False, default=float) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    # Beside it and renamed: killed in the middle, the former one stays.
    new = path.with_suffix(".new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        msg = f"{path}: can't be written ({error.strerror})"
        raise BadInput(msg) from error
    return True


def read_at(folder: Path, ref: str) -> EventSchemas:
    """The schemas of ``folder`` at the commit that ``ref`` names; none of them before there was the folder.

    Raises:
        BadInput: there is no such commit, or its schemas are none.
        Unreachable: there is no git.
    """
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        msg = f"--against {ref}: git knows no such commit in {folder}; in CI fetch it first (fetch-depth: 0)"
        raise BadInput(msg)
    names = _git(folder, "ls-tree", "--name-only", "-z", commit.strip(), "./") or ""
    texts: dict[str, str] = {}
    for name in names.split("\0"):
        if name.endswith(".json"):
            texts[name] = _git(folder, "cat-file", "blob", f"{commit.strip()}:./{name}") or ""
    return parse_folder(f"{ref}:{folder}", texts)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
            # Of what is not UTF-8 half a surrogate stays, which no schema may hold.
            errors="surrogateescape",
        )
    except OSError as error:
        msg = "git is not on PATH: install it"
        raise Unreachable(msg) from error
    return done.stdout if done.returncode == 0 else None
