"""The workflows as they stand there: their steps, run as a runner does, with stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".github" / "workflows"
FILES = sorted(PLACE.glob("*.yml"))
Workflow = dict[Any, Any]


def load(name: str) -> Workflow:
    """A workflow of the platform; ``on`` is the key True, as YAML 1.1 has it."""
    return yaml.safe_load((PLACE / name).read_text(encoding="utf-8"))


def steps(workflow: Workflow) -> Iterator[tuple[Workflow, Workflow]]:
    """Each step, with its job."""
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            yield job, step


def step_with(workflow: Workflow, text: str) -> Workflow:
    """The one step that runs ``text``."""
    (found,) = [step for _, step in steps(workflow) if text in step.get("run", "")]
    return found


def shell_of(workflow: Workflow, step: Workflow) -> list[str]:
    """https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell"""
    named = step.get("shell") or workflow.get("defaults", {}).get("run", {}).get("shell")
    return ["bash", "--noprofile", "--norc", "-eo", "pipefail"] if named == "bash" else ["bash", "-e"]


def checkout_with_comment(folder: Path) -> Path:
    """A checkout in ``folder`` that has ``.ci/comment`` and what that needs."""
    place = folder / "checkout"
    (place / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "comment", place / ".ci")
    (place / "runtime").symlink_to(ROOT / "runtime")
    return place


def write_program(folder: Path, name: str, text: str) -> None:
    """A stand-in that is found before what it stands for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def run(
    workflow: Workflow, text: str, *, place: Path, programs: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """The step that runs ``text``, in the folder ``place``; each expression in its ``env`` must be given."""
    step = step_with(workflow, text)
    wanted = {name for name, value in step.get("env", {}).items() if "${{" in str(value)}
    assert wanted <= variables.keys(), wanted - variables.keys()
    plain = {name: str(value) for name, value in step.get("env", {}).items() if name not in wanted}
    programs.mkdir(parents=True, exist_ok=True)
    script = programs / "step.sh"
    script.write_text(step["run"])
    return subprocess.run(
        [*shell_of(workflow, step), str(script)],
        cwd=place,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **plain, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def pipes(text: str) -> bool:
    """Whether a command's output goes to another, where words in quotes and ``case`` patterns don't count."""
    bare = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", "", text)
    lines = [re.sub(r"^\s*[\w.* |]+\)", "", line.partition("#")[0]) for line in bare.splitlines()]
    return any(re.search(r"(?<!\|)\|(?!\|)", line) for line in lines)


def evaluate(text: str, values: Mapping[str, str | None]) -> str:
    """What GitHub makes of a text with expressions of comparisons, ``&&`` and ``||``."""

    def value(found: re.Match[str]) -> str:
        words = re.sub(r"\b(?:github|inputs)(?:\.\w+)+", lambda name: repr(values[name[0]]), found[1])
        return str(eval(words.replace("&&", " and ").replace("||", " or ")))

    return re.sub(r"\$\{\{(.*?)\}\}", value, text, flags=re.DOTALL)
