"""The ``pulumi`` of ``.kilo/bin``: the engine's own, given the sandbox's copy of the stage's configuration.

A stage's file may name a cloud's secrets provider, and without one the engine notes its own salt there.
The sandbox encrypts by a passphrase of its own, so a command that runs the program reads a copy of the file
under ``.kilo/config`` without the one and with the other, for dev with the sandbox's database, and the file
itself stays as it is.

Where the project has a policy pack, every preview and every update is held to it. What is called in another
project's folder, ``bootstrap/`` or a user's own, is left to the engine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.engine.environment import Layout
from sandbox.own_database import with_own_database
from sandbox.stages import DEV, identity_of, stage_config

RUNS_THE_PROGRAM = frozenset(
    {"preview", "pre", "up", "update", "refresh", "destroy", "down", "import", "watch"}
)
CHECKED = frozenset({"preview", "pre", "up", "update"})
_TAKES_A_VALUE = frozenset({"-s", "--stack", "-C", "--cwd", "--color", "-v", "--verbose", "--config-file"})
_PROVIDER = re.compile(r"^(secretsprovider|encryptedkey|encryptionsalt):.*\n?", re.MULTILINE)
_SECURE = re.compile(r"^\s+secure:", re.MULTILINE)
_SALT = re.compile(r"^encryptionsalt:.*$", re.MULTILINE)


def is_for(project: Path, arguments: Sequence[str]) -> bool:
    """Whether the engine would run in ``project``: whether the nearest ``Pulumi.yaml`` is that one's."""
    folder = Path(_value(arguments, "-C", "--cwd") or ".").resolve()
    found = next((each for each in (folder, *folder.parents) if (each / "Pulumi.yaml").exists()), None)
    return found == project.resolve()


def with_stack(engine: str, arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the stack that ``pulumi stack select`` chose, where they run the program of none."""
    given = list(arguments)
    if _command(given) not in RUNS_THE_PROGRAM or _stack(given):
        return given
    asked = [engine, "stack", "--show-name", "--non-interactive"]
    selected = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return [*given, "--stack", selected] if selected else given


def with_configuration(project: Path, arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the sandbox's copy of the configuration of the stack that they name."""
    given = list(arguments)
    stack = _stack(given)
    has_file = any(word.split("=", 1)[0] == "--config-file" for word in given)
    if _command(given) not in RUNS_THE_PROGRAM or stack is None or has_file:
        return given
    copy = sandbox_configuration(project, stack)
    return [*given, "--config-file", str(copy)] if copy else given


def sandbox_configuration(project: Path, stack: str) -> Path | None:
    """The sandbox's copy of a stage's file, brought up to date; None when the stage has no file."""
    source = project / f"Pulumi.{stack}.yaml"
    home = Layout(project).home
    copy = home / "config" / source.name
    try:
        text = without_secrets_provider(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    if stack == DEV:
        text = with_own_database(text, home)
    # Secrets in the file itself, of `pulumi config set --secret`, are encrypted with the file's own salt.
    own = source if _SECURE.search(text) else copy
    if own.exists() and (salt := _SALT.search(own.read_text(encoding="utf-8"))):
        text = f"{text.rstrip()}\n{salt[0]}\n"
    copy.parent.mkdir(parents=True, exist_ok=True)
    beside = copy.with_name(f".{os.getpid()}.{copy.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(copy)
    return copy


def with_policies(project: Path, arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the project's own policy pack, unless they name one."""
    given = list(arguments)
    has_pack = any(word.split("=", 1)[0] == "--policy-pack" for word in given)
    if _command(given) not in CHECKED or has_pack:
        return given
    return [*given, *policies(project, _stack(given))]


def policies(project: Path, stack: str | None) -> list[str]:
    """The options that hold a command to the project's policy pack, as strictly as the stage wants it."""
    pack = project / "infra" / "policy"
    if not (pack / "PulumiPolicy.yaml").is_file():
        return []
    options = ["--policy-pack", str(pack)]
    level = stage_config(project, stack).get("kilo:policy_enforcement") if stack else None
    # The levels of a pack are mandatory unless a file says otherwise; what is none the program refuses.
    if level and (levels := pack / f"{level}.json").is_file():
        options += ["--policy-pack-config", str(levels)]
    return options


def without_secrets_provider(text: str) -> str:
    """The text of a stage's file without what says how its secrets are encrypted."""
    return _PROVIDER.sub("", text)


def _command(arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word in _TAKES_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _stack(arguments: Sequence[str]) -> str | None:
    given = _value(arguments, "-s", "--stack")
    return given.rpartition("/")[2] if given else os.environ.get("PULUMI_STACK")


def _value(arguments: Sequence[str], short: str, long: str) -> str | None:
    """An option's value, however it is given: ``-s dev``, ``-s=dev``, ``-sdev``, ``--stack=dev``."""
    for index, word in enumerate(arguments):
        if word in (short, long):
            return next(iter(arguments[index + 1 :]), None)
        if word.startswith(f"{long}="):
            return word.partition("=")[2]
        if word.startswith(short) and not word.startswith("--"):
            return word.removeprefix(short).removeprefix("=")
    return None


def main() -> None:
    """Become the engine: ``command PROJECT ENGINE ARGUMENTS…``."""
    project, engine, *arguments = sys.argv[1:]
    # A lock that is there before we start may be a killed engine's.
    if any((Layout(Path(project)).state / ".pulumi" / "locks").rglob("*.json")):
        recovery = [sys.executable, "-P", "-m", "sandbox.engine.recovery", project]
        done = subprocess.run(
            recovery, env={**os.environ, "KILO_PULUMI": engine}, stdout=sys.stderr, check=False
        )
        if done.returncode:
            sys.exit(done.returncode)
    arguments = with_stack(engine, arguments)
    for name, value in identity_of(Path(project), _stack(arguments) or "").items():
        os.environ.setdefault(name, value)
    if is_for(Path(project), arguments):
        arguments = with_policies(Path(project), with_configuration(Path(project), arguments))
    os.execv(engine, [engine, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
