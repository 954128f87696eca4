"""The names of the database's roles: their users, and the Secrets that hold their URLs."""

from __future__ import annotations

from typing import Literal, get_args

DatabaseRole = Literal[
    "ingest", "worker", "consumer", "cdc", "backup", "auditor", "destroyer", "keymaker", "rotator"
]
ROLES: tuple[DatabaseRole, ...] = get_args(DatabaseRole)
URL_KEY = "DATABASE_URL"


def secret_of(role: DatabaseRole) -> str:
    """The name of the Secret that holds ``role``'s URL."""
    return f"database-{role}"


def user_of(role: DatabaseRole) -> str:
    """The database user of ``role``."""
    return f"kilo_{role}"
