"""Errors that reach a person, and the exit codes of every ``kilo`` command.

A mistake that a user can make is raised as a :class:`KiloError`; the command line prints its one
line and exits with its code, and no traceback is shown.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every ``kilo`` command."""

    OK = 0
    CHECK_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3


class KiloError(Exception):
    """A failure with a message for a person: the place, what was wrong, what would be right."""

    exit_code: ClassVar[ExitCode] = ExitCode.BAD_INPUT


class CheckFailed(KiloError):
    """The check ran and its answer is no."""

    exit_code = ExitCode.CHECK_FAILED


class BadInput(KiloError):
    """Wrong use or bad input: a flag, a file, a field."""

    exit_code = ExitCode.BAD_INPUT


class RoleDenied(BadInput):
    """The database refuses what is done: the role of its URL lacks a privilege."""


class Unreachable(KiloError):
    """A component that the command needs could not be reached."""

    exit_code = ExitCode.UNREACHABLE
