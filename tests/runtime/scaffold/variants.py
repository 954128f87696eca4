"""The template's variants, and a repository that it is taken from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kilo.scaffold.template import create

ROOT = Path(__file__).parents[3]
LONGEST = "a23456789-123456789-123456789-1234567890"
VARIANTS = {
    "http": {"kind": "http"},
    "http-plain": {"kind": "http", "database": False},
    "http-silent": {"kind": "http", "outbox": False},
    "http-private": {"kind": "http", "encrypted": True},
    "consumer": {"kind": "consumer"},
    "job": {"kind": "job"},
    "job-plain": {"kind": "job", "database": False},
    "job-silent": {"kind": "job", "outbox": False},
}
_WHO = ("-c", "user.name=test", "-c", "user.email=test@example.com")


def template_repository(directory: Path, tag: str = "v0.1.0") -> Path:
    """A repository with the template as it is in this tree, at version ``tag``."""
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "copier.yml", directory)
    shutil.copytree(ROOT / "templates", directory / "templates")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(directory)], check=True)
    commit(directory, "template", tag=tag)
    return directory


def commit(directory: Path, message: str, tag: str | None = None) -> None:
    git = ["git", "-C", str(directory), *_WHO]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", message], check=True)
    if tag:
        subprocess.run([*git, "tag", tag], check=True)


def make(variant: str, template: Path, into: Path, name: str | None = None) -> Path:
    """A service of a variant."""
    called = name or f"{variant}-service"
    return create(called, into / called, VARIANTS[variant], str(template), None, ask=False).directory
