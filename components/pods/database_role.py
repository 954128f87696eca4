"""The names of the database's roles: their users, and the Secrets that hold their URLs."""

from __future__ import annotations

from typing import Literal, get_args

from kilo.logins import login_of

GENERATION = "kilo.dev/database-credentials"
"""On pods: they are replaced when their user is."""

DatabaseRole = Literal[
    "ingest", "worker", "consumer", "cdc", "backup", "auditor", "destroyer", "keymaker", "rotator", "usage"
]
USAGE: DatabaseRole = "usage"
"""Of stages that collect usage alone."""
_ALL: tuple[DatabaseRole, ...] = get_args(DatabaseRole)


def roles_of(*, usage: bool) -> tuple[DatabaseRole, ...]:
    """The roles that processes of a stage have; ``usage`` says whether it collects usage."""
    return tuple(role for role in _ALL if usage or role != USAGE)


URL_KEY = "DATABASE_URL"


def user_of(role: DatabaseRole, generation: int = 1) -> str:
    """By which database user ``role`` logs in, with the passwords of a generation."""
    return login_of(f"kilo_{role}", generation)
