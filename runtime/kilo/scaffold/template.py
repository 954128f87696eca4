"""Makes a service from the template by Copier: beside its place and renamed, so that none is half written."""

from __future__ import annotations

import fcntl
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kilo.errors import BadInput, Unreachable
from kilo.extras import extra_of, requires
from kilo.project import locate_project

with requires("scaffold"):
    import yaml
    from copier import run_copy
    from copier.errors import CopierError, DirtyLocalWarning

ANSWERS = ".copier-answers.yml"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_LOCK = ".lock"
_UNFINISHED = ".unfinished"
"""Ends the names of directories that services are made in: nobody else's is cleared up."""
_TAKEN = frozenset({"kilo", "psycopg", "pydantic", "test", "tests"}) | sys.stdlib_module_names
WORKLOADS = frozenset(
    {
        *(
            "audit-checkpoint",
            "backup",
            "backup-completion",
            "backup-drill",
            "backup-exporter",
            "bus-streams",
        ),
        *("consumer", "debezium", "debezium-headless", "gateway", "ingest", "kafka", "key-destruction"),
        *("key-making", "nats", "nats-headless", "objectives-exporter", "otel-collector", "outbox"),
        *(
            "outbox-reconciler",
            "outbox-worker",
            "postgres",
            "rate-limits",
            "rate-limits-store",
            "registry-mirror",
        ),
        *("registry-sweep", "schema", "seed", "usage-counter"),
    }
)
"""What runs in the namespace of a stage or a preview already."""
_TEMPLATE = ("copier.yml", "templates")
"""What of the platform's repository decides about services."""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_URL = re.compile(r"(https?|ssh|git|file)://|git@|gh:|gl:")


@dataclass(frozen=True, slots=True)
class Service:
    """A directory that was made from the template."""

    directory: Path
    answers: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.answers["name"])

    @property
    def version(self) -> str:
        """The template's version that it is at, as git describes it."""
        return str(self.answers["_commit"])


def default_template() -> str:
    """The platform's checkout that this is called in.

    Raises:
        BadInput: it is called outside of one.
    """
    project = locate_project()
    if project is None or not (project / "copier.yml").exists():
        msg = "--template: name the platform's repository, a git URL or a path; in a checkout it is that one"
        raise BadInput(msg)
    return str(project)


def check_name(name: str) -> None:
    """Refuse a name that can't be a service's.

    Raises:
        BadInput: it is no DNS label, or no name for a Python package, or the platform's own.
    """
    if not _NAME.fullmatch(name):
        msg = (
            f"NAME {name[:80]!r}: lower-case letters, digits and inner hyphens, beginning with a letter,"
            " at most 40 characters"
        )
        raise BadInput(msg)
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in _TAKEN or extra_of(package):
        msg = f"NAME {name!r}: the Python package {package} would hide one that is there; take another name"
        raise BadInput(msg)
    if name in WORKLOADS or name.startswith("ingest-"):
        msg = f"NAME {name!r}: the platform has a workload of this name itself; take another name"
        raise BadInput(msg)


def create(
    name: str, directory: Path, answers: Mapping[str, Any], template: str, ref: str | None, *, ask: bool
) -> Service:
    """Make the service ``name`` in ``directory``, which must not exist.

    Args:
        name: a DNS label.
        directory: where it will lie.
        answers: to the template's questions, by their names; the rest is asked or takes its default.
        template: a git URL, or a path of a git repository.
        ref: a tag or commit of it; by default the newest version, of a path its last commit.
        ask: whether to ask at the terminal.

    Raises:
        BadInput: the name or an answer won't do, or the directory is there already.
        Unreachable: the template can't be had.
    """
    check_name(name)
    # A link that leads nowhere is there, too.
    if os.path.lexists(directory):
        msg = f"{directory}: is there already; remove it, or choose another with --into"
        raise BadInput(msg)
    if not directory.parent.is_dir():
        msg = f"{directory.parent}: no such directory; make it first, or choose another with --into"
        raise BadInput(msg)
    try:
        with workplace(directory.parent, name) as work:
            made = work / name
            carried_out(lambda: _copy(template, made, {**answers, "name": name}, ref, ask=ask), template)
            made.rename(directory)
    except OSError as error:
        msg = f"{directory}: can't be made ({error.strerror}); choose another with --into"
        raise BadInput(msg) from error
    return load(directory)


@contextmanager
def workplace(parent: Path, name: str) -> Generator[Path]:
    """A directory beside the service's place, so that the rename stays within one file system.

    It is gone afterwards; what is there of a run that was killed goes before.
    """
    for left in parent.glob(f".{name}-*{_UNFINISHED}"):
        # It may go meanwhile, by another run that clears up too.
        with suppress(OSError), (left / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    work, lock = _locked_directory(parent, name)
    with lock:
        try:
            yield work
        finally:
            shutil.rmtree(work)


def _locked_directory(parent: Path, name: str) -> tuple[Path, IO[str]]:
    """A new directory and its lock: made again when another run clears it up before the lock is taken."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=_UNFINISHED, dir=parent))
        with suppress(FileNotFoundError), ExitStack() as stack:
            lock = stack.enter_context((work / _LOCK).open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), (work / _LOCK).stat()):
                stack.pop_all()
                return work, lock


def _copy(template: str, target: Path, answers: Mapping[str, Any], ref: str | None, *, ask: bool) -> None:
    source = source_of(template, f"--template {template}")
    run_copy(
        source,
        target,
        data=dict(answers),
        vcs_ref=pinned(source, ref),
        defaults=not ask,
        quiet=True,
    )


def load(directory: Path) -> Service:
    """Read what a service was made from.

    Raises:
        BadInput: the directory has no answers of the template, or they can't be read.
    """
    path = directory / ANSWERS
    try:
        answers: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}); `kilo svc new` makes services"
        raise BadInput(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: not YAML; restore it from git"
        raise BadInput(msg) from error
    missing = [key for key in ("_src_path", "_commit", "name", "kind") if key not in (answers or {})]
    if missing or not isinstance(answers, dict):
        msg = f"{path}: {', '.join(missing) or 'not a mapping'}: missing; restore the file from git"
        raise BadInput(msg)
    return Service(directory, answers)  # pyright: ignore[reportUnknownArgumentType] - checked above


def git(directory: Path, *arguments: str) -> str:
    """What git says in ``directory``; nothing when it says no.

    Raises:
        Unreachable: there is no git.
    """
    if shutil.which("git") is None:
        msg = "git is not on PATH: install it"
        raise Unreachable(msg)
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def source_of(template: str, place: str) -> str:
    """Where Copier takes the template from; ``place`` names it in messages.

    Raises:
        BadInput: a path that is no git repository.
    """
    # Copier keeps it for updates as it is given, and a relative path is one from elsewhere then.
    if _URL.match(template):
        return template
    if not Path(template, ".git").exists():
        msg = f"{place}: no git repository; name the platform's, by URL or path"
        raise BadInput(msg)
    return str(Path(template).absolute())


def pinned(source: str, ref: str | None) -> str | None:
    """The version that is taken: ``ref``, or of a path its last commit, or of a URL its newest tag.

    Raises:
        BadInput: the template at the path has changes that are not committed. Copier would take them and note
            a version that nobody can find when the service is updated.
    """
    if ref or _URL.match(source):
        return ref
    if changed := git(Path(source), "status", "--porcelain", "--", *_TEMPLATE).splitlines():
        msg = f"{Path(source, changed[0][3:])}: not committed; commit it first, or name a version: --ref"
        raise BadInput(msg)
    return git(Path(source), "rev-parse", "HEAD").strip() or None


def check_version(source: str, version: str, place: str) -> None:
    """Refuse a version that the template does not have; of one elsewhere, what is none.

    Raises:
        BadInput: it is none.
    """
    known = _URL.match(source) or git(
        Path(source), "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}"
    )
    if not _VERSION.fullmatch(version) or not known:
        msg = (
            f"{place}: {version[:80]}: the template at {source} has no such version; "
            "name the one that the service is nearest to, and commit that"
        )
        raise BadInput(msg)


def carried_out(work: Callable[[], object], template: str) -> None:
    """Run what Copier is to do with ``template``, whose errors become this project's.

    Raises:
        BadInput: the template or an answer won't do.
        Unreachable: the template can't be had.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DirtyLocalWarning)
            work()
    except CopierError as error:
        msg = f"--template {template}: {str(error).splitlines()[0]}"
        raise BadInput(msg) from error
    except ValueError as error:
        # "Validation error for question 'schedule': …"
        raise BadInput(" ".join(str(error).split())) from error
    except OSError as error:
        # What git said of a repository that can't be had; plumbum's own error is an OSError too.
        last = [line for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in last if "fatal:" in line), last[-1] if last else type(error).__name__)
        msg = f"--template {template}: {reason.split('fatal:')[-1].strip(' |')}"
        raise Unreachable(msg) from error
