"""A Pulumi project in a folder of its own, driven through the real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import toolchain
from sandbox.engine import environment
from sandbox.engine.environment import Endpoints, Layout

STACK = "dev"


@dataclass(frozen=True)
class Outcome:
    """What one command of the engine did."""

    code: int
    events: list[dict[str, Any]]
    errors: str

    @property
    def steps(self) -> dict[str, str]:
        """The operation by resource name; an unchanged resource and the stack are left out."""
        found: dict[str, str] = {}
        for event in self.events:
            # A refresh knows only afterwards what it was.
            metadata = (event.get("resourcePreEvent") or event.get("resOutputsEvent") or {}).get("metadata")
            if not metadata or metadata["type"].startswith("pulumi:"):
                continue
            if metadata["op"] not in {"same", "refresh"}:
                name = metadata["urn"].rpartition("::")[2]
                # A replacement is three steps.
                replacing = metadata["op"] in {"create-replacement", "replace", "delete-replaced"}
                found[name] = "replace" if replacing else metadata["op"]
        return found

    @property
    def diffs(self) -> dict[str, dict[str, str]]:
        """By resource name, the kind of change of each changed property path."""
        found: dict[str, dict[str, str]] = {}
        for event in self.events:
            metadata = (event.get("resourcePreEvent") or event.get("resOutputsEvent") or {}).get(
                "metadata"
            ) or {}
            if detailed := metadata.get("detailedDiff"):
                name = metadata["urn"].rpartition("::")[2]
                found[name] = {path: change["diffKind"] for path, change in detailed.items()}
        return found

    @property
    def messages(self) -> str:
        """Everything that was said to the user."""
        said = [event["diagnosticEvent"]["message"] for event in self.events if "diagnosticEvent" in event]
        return "\n".join([*said, self.errors])


@dataclass
class Project:
    """One project, one stack.

    Attributes:
        directory: of Pulumi.yaml.
        endpoints: of the servers behind the providers.
        config: of the stack.
        blank: a project with an empty stack to begin from, which is faster than making one.
        head: what every program begins with.
    """

    directory: Path
    endpoints: Endpoints
    config: dict[str, str] = field(default_factory=dict[str, str])
    blank: Path | None = None
    head: str = ""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.blank:
            shutil.copytree(self.blank, self.directory, dirs_exist_ok=True)
        self.pulumi = toolchain.path("pulumi")
        self.variables = environment.prepare(self.directory, self.pulumi, self.endpoints)
        options = {"virtualenv": sys.prefix}
        project = {"name": "trial", "runtime": {"name": "python", "options": options}, "main": "program/"}
        (self.directory / "Pulumi.yaml").write_text(json.dumps(project))
        if not self.blank:
            self.run("stack", "init", STACK)
        if self.config:
            lines = [f"  {name}: {value}" for name, value in self.config.items()]
            with (self.directory / f"Pulumi.{STACK}.yaml").open("a") as file:
                file.write("config:\n" + "\n".join(lines) + "\n")

    @property
    def layout(self) -> Layout:
        """Where the project's files are."""
        return Layout(self.directory)

    def program(self, text: str) -> None:
        """Write the program."""
        folder = self.directory / "program"
        folder.mkdir(exist_ok=True)
        (folder / "__main__.py").write_text(f"import json, os, pulumi\n{self.head}\n" + textwrap.dedent(text))

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the engine in the sandbox's environment."""
        return subprocess.run(
            ["pulumi", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a shell set up by ``kilo env``."""
        return environment.overlay(self.variables)

    def engine(self, command: str, *arguments: str, code: int | None = 0) -> Outcome:
        """``up``, ``preview``, ``refresh`` or ``destroy``; must exit with ``code`` unless that is None."""
        given: Sequence[str] = (command, "--stack", STACK, "--json", "--non-interactive", *arguments)
        if command in {"up", "destroy"} or (command == "refresh" and "--preview-only" not in arguments):
            given = (*given, "--yes", "--skip-preview")
        environment_ = {**self.environment, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true"}
        done = subprocess.run(
            ["pulumi", *given],
            cwd=self.directory,
            env=environment_,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        # Debug messages of the SDK itself, which no one is shown, carry values in the clear.
        shown = [e for e in events if (e.get("diagnosticEvent") or {}).get("severity") != "debug"]
        outcome = Outcome(done.returncode, shown, done.stderr)
        if code is not None:
            assert done.returncode == code, outcome.messages
        return outcome

    def up(self, text: str | None = None, *arguments: str, code: int | None = 0) -> Outcome:
        """Carry out a program, or the one that is there."""
        if text is not None:
            self.program(text)
        return self.engine("up", *arguments, code=code)

    def preview(self, text: str | None = None, *arguments: str, code: int | None = 0) -> Outcome:
        """Preview a program, or the one that is there."""
        if text is not None:
            self.program(text)
        return self.engine("preview", *arguments, code=code)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets included."""
        return json.loads(self.run("stack", "output", "--stack", STACK, "--json", "--show-secrets").stdout)

    def state(self) -> list[dict[str, Any]]:
        """The resources in the state, secrets as the backend has them."""
        exported = json.loads(self.run("stack", "export", "--stack", STACK).stdout)
        return exported["deployment"].get("resources") or []
