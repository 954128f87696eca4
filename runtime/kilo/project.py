"""Finds the checkout of the platform that a command is called in."""

from __future__ import annotations

from pathlib import Path

from kilo.errors import BadInput

PROJECT_FILE = "Pulumi.yaml"


def locate_project(start: Path | None = None) -> Path | None:
    """The folder of ``Pulumi.yaml`` at or above ``start`` (the working directory), or None."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / PROJECT_FILE).is_file()), None)


def find_project(start: Path | None = None) -> Path:
    """As :func:`locate_project`, for commands that can do nothing elsewhere.

    Raises:
        BadInput: there is none.
    """
    project = locate_project(start)
    if project is None:
        here = (start or Path.cwd()).resolve()
        msg = f"{here}: no {PROJECT_FILE} here or above; change into a checkout of the platform's repository"
        raise BadInput(msg)
    return project
