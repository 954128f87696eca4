"""The engine on previews' stacks: each has a project file of its own, which runs the previews' program.

The engine runs in a session of its own, so that whatever ends this process leaves it to finish; the next
command on the same preview waits for it. What a killed engine leaves behind, the next one finishes or
removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from components.processes.preview_environment import EXPIRES
from infra.configuration import PROJECT
from infra.previews.request import Target
from infra.previews.settings import (
    ADDRESS_OUTPUT,
    CONFIG_KEY,
    DATABASE_OUTPUT,
    OUTPUT,
    PreviewSettings,
    stack_of,
    stack_prefix,
)
from kilo.errors import CheckFailed, Unreachable

WAIT_SECONDS = 600
"""How long another command on the same preview is waited for."""
_PAUSE_SECONDS = 0.5
_LOCKED = ("currently locked", "already in progress", "[409]")
_SECRETS = re.compile(r"^(secretsprovider|encryptedkey|encryptionsalt):.*\n?", re.MULTILINE)
_NO_STACK = "no stack named"
_EMPTY = re.compile(r"^\d+ errors? occurred:$|^(update|preview|destroy) failed$|^resource registration|^$")


class NotCarriedOut(CheckFailed):
    """The engine could not; its reasons, a line each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class Found:
    """A preview as its stack has it."""

    name: str
    settings: PreviewSettings | None
    """None for one whose making was interrupted before all of it was known."""
    expires_at: datetime | None
    address: str = ""
    database_url: str = ""
    resources: int = 0


class Engine:
    """The previews of one stage."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._home = target.project / ".kilo" / "previews"

    def folder(self, name: str) -> Path:
        """Where this machine keeps what the preview's stack is made from, and the engine's words."""
        return self._home / name

    @contextmanager
    def turn(self, name: str) -> Generator[None]:
        """One command at a time on a preview, on this machine; from elsewhere the stack's lock says so.

        Raises:
            Unreachable: another command goes on for too long.
        """
        with self._one_of([self._home / f"{name}.lock"], f"another kilo preview of {name}"):
            yield

    @contextmanager
    def _room(self) -> Generator[None]:
        """As many engines at once as the machine has processors: more would only take longer, all of them."""
        if not self._target.is_here:
            yield
            return
        places = [self._home / f".room-{number}.lock" for number in range(os.cpu_count() or 1)]
        with self._one_of(places, "other previews' engines"):
            yield

    @contextmanager
    def _one_of(self, paths: Sequence[Path], whose: str) -> Generator[None]:
        self._home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            for path in paths:
                with path.open("a") as lock:
                    if _take(lock, path):
                        yield
                        return
            if time.monotonic() > deadline:
                msg = f"{whose} did not end within {WAIT_SECONDS} s"
                raise Unreachable(msg)
            time.sleep(_PAUSE_SECONDS)

    def up(self, settings: PreviewSettings) -> None:
        """Make the preview what ``settings`` say.

        Raises:
            NotCarriedOut: the engine's reasons.
            Unreachable: there is no engine, or its state can't be reached.
        """
        folder = self._prepare(settings)
        provider = self._secrets_provider()
        self._pulumi(["stack", "select", "--create", settings.stack, *provider], folder)
        policies = self._target.project / "infra" / "policy"
        # Nothing of a preview outlives it, so the rule that what holds data is protected is not for it.
        pack = ["--policy-pack", str(policies), "--policy-pack-config", str(policies / "unprotected.json")]
        # A Job that failed stays failed, whatever was mended meanwhile: it is made anew.
        again = [word for urn in self._failed_jobs(settings.stack, folder) for word in ("--replace", urn)]
        up = ["up", "--stack", settings.stack, "--yes", "--skip-preview", "--suppress-outputs"]
        with self._room():
            self._pulumi([*up, *pack, *again], folder)

    def _failed_jobs(self, stack: str, folder: Path) -> list[str]:
        state = json.loads(self._pulumi(["stack", "export", "--stack", stack], folder))
        return [
            each["urn"]
            for each in state["deployment"].get("resources") or []
            if each["type"] == "kubernetes:batch/v1:Job" and each.get("initErrors")
        ]

    def destroy(self, name: str) -> bool:
        """Remove the preview and its stack; says whether there was one.

        Raises:
            NotCarriedOut: the engine's reasons.
        """
        stack = stack_of(self._target.stage, name)
        folder = self._project_folder(name)
        try:
            with self._room():
                self._pulumi(["destroy", "--stack", stack, "--yes", "--skip-preview", "--remove"], folder)
        except NotCarriedOut as error:
            if not any(_NO_STACK in reason for reason in error.reasons):
                raise
            existed = False
        else:
            existed = True
        shutil.rmtree(folder, ignore_errors=True)
        (self._home / f"{name}.lock").unlink(missing_ok=True)
        return existed

    def names(self) -> list[str]:
        """The previews that the stage has, whole or not."""
        prefix = stack_prefix(self._target.stage)
        listed = json.loads(self._pulumi(["stack", "ls", "--json"], self._target.project))
        stacks = (each["name"].rpartition("/")[2] for each in listed)
        return sorted(each.removeprefix(prefix) for each in stacks if each.startswith(prefix))

    def find(self, name: str) -> Found | None:
        """What is known of a preview, its secrets included; None when there is none."""
        stack = stack_of(self._target.stage, name)
        try:
            text = self._pulumi(["stack", "export", "--show-secrets", "--stack", stack], self._target.project)
        except NotCarriedOut as error:
            if any(_NO_STACK in reason for reason in error.reasons):
                return None
            raise
        resources = json.loads(text)["deployment"].get("resources") or []
        outputs: Mapping[str, Any] = next(
            (each.get("outputs") or {} for each in resources if each["type"] == "pulumi:pulumi:Stack"), {}
        )
        settings = None
        with suppress(KeyError, ValidationError):
            settings = PreviewSettings.model_validate(outputs[OUTPUT])
        return Found(
            name,
            settings,
            settings.expires_at if settings else _annotated(resources),
            outputs.get(ADDRESS_OUTPUT, ""),
            _plain(outputs.get(DATABASE_OUTPUT, "")),
            len(resources),
        )

    def _prepare(self, settings: PreviewSettings) -> Path:
        """Write the stack's project and configuration."""
        folder = self._project_folder(settings.name)
        file = folder / f"Pulumi.{settings.stack}.yaml"
        kept = "".join(m[0] for m in _SECRETS.finditer(file.read_text())) if file.exists() else ""
        config = {**self._target.config(), f"{PROJECT}:{CONFIG_KEY}": settings.model_dump_json()}
        _write(file, kept + yaml.safe_dump({"config": config}))
        # For whoever collects on this machine: no engine needs to be asked whether it is time.
        _write(folder / "expires-at", str(settings.expires_at.timestamp()))
        return folder

    def _project_folder(self, name: str) -> Path:
        folder, project = self.folder(name), self._target.project
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            # The stage's own project, in whose state the stacks lie side by side.
            "name": PROJECT,
            "runtime": {"name": "python", "options": {"virtualenv": str(project / ".venv")}},
            "main": str(project / "infra" / "previews"),
        }
        _write(folder / "Pulumi.yaml", yaml.safe_dump(document))
        return folder

    def _secrets_provider(self) -> list[str]:
        if self._target.is_here:
            return []
        text = (self._target.project / f"Pulumi.{self._target.stage}.yaml").read_text(encoding="utf-8")
        found = re.search(r"^secretsprovider:\s*(\S+)", text, re.MULTILINE)
        return ["--secrets-provider", found[1]] if found else []

    def _pulumi(self, arguments: Sequence[str], folder: Path) -> str:
        """What the engine says; a locked stack is waited for.

        Raises:
            NotCarriedOut: the engine's reasons.
            Unreachable: there is no engine, or the stack stays locked.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            code, output = _run(arguments, folder)
            if code == 0:
                return output
            if not any(sign in output for sign in _LOCKED):
                raise NotCarriedOut(reasons_of(output))
            if time.monotonic() > deadline:
                msg = "another engine has had the stack for too long; if none runs: pulumi cancel"
                raise Unreachable(msg)
            time.sleep(_PAUSE_SECONDS)


def _take(lock: TextIO, path: Path) -> bool:
    """Take the lock; it is none any more when whoever had it before has removed the preview and the file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(lock.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _run(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    program = shutil.which("pulumi")
    if program is None:
        msg = "pulumi: not on PATH; in the sandbox run `kilo up`, else install Pulumi 3.259 or later"
        raise Unreachable(msg)
    process = subprocess.Popen(
        [program, *arguments, "--non-interactive", "--color", "never"],
        cwd=folder,
        # The engine would take these for its own, of another stack or file.
        env={name: value for name, value in os.environ.items() if name != "PULUMI_STACK"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate()
    except KeyboardInterrupt:
        # It ends in order, so that its state says how far it came.
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
        raise
    if arguments[0] in {"up", "destroy"}:
        _write(folder / "engine.log", output + errors)
    return process.returncode, output if process.returncode == 0 else output + errors


def reasons_of(output: str) -> list[str]:
    """The engine's errors, each once, without its headings and what only says that there was one."""
    text = f"\n{output}"
    said = text.partition("\nDiagnostics:")[2].partition("\nResources:")[0] or text
    found: dict[str, None] = {}
    policies = map(str.strip, text.partition("\nPolicies:")[2].partition("\n\n")[0].splitlines())
    broken = ""
    for line in policies:
        if "[mandatory]" in line:
            broken = " ".join(line.removeprefix("- ").split())
        elif broken and line:
            found.setdefault(f"{broken}: {line}")
    for line in map(str.strip, said.splitlines()):
        reason = line.partition("error:")[2].strip() if "error:" in line else line
        if ("error:" in line or line.startswith("* ")) and not _EMPTY.search(reason):
            found.setdefault(reason.removeprefix("* "))
    lines = [line for line in map(str.strip, output.splitlines()) if line]
    return list(found) or lines[-3:] or ["no reason given"]


def _annotated(resources: Sequence[Mapping[str, Any]]) -> datetime | None:
    for each in resources:
        if each["type"] == "kubernetes:core/v1:Namespace":
            with suppress(KeyError, TypeError, ValueError):
                return datetime.fromisoformat(each["inputs"]["metadata"]["annotations"][EXPIRES])
    return None


def _plain(value: Any) -> str:
    """An output; a secret one is wrapped in the state."""
    if isinstance(value, dict):
        return str(json.loads(value["plaintext"])) if "plaintext" in value else ""
    return str(value)


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
