"""As which role of the database each command works: the command line tells it to whom is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from kilo.environment import DATABASE_VARIABLE

ADMIN = "admin"
"""Who migrates and owns the tables; the others are the stage's roles, which have less."""
ROLES_OF_COMMANDS = {
    "ingest": "ingest",
    "outbox": "worker",
    "consumer refill": "worker",
    "consumer run": "consumer",
    "dlq": "consumer",
    "cdc watch": "cdc",
    "usage": "usage",
    "fle": "rotator",
    "fle audit": "auditor",
    "fle keys destroy-due": "destroyer",
    "backup run": "backup",
    # Reads everything and changes nothing.
    "trace": "backup",
    "events find": "backup",
    "goals": "backup",
    "risks": "backup",
    "dash": "backup",
    "tenant offboard": "backup",
    "evidence build": ADMIN,
    "traffic": ADMIN,
    "promote": ADMIN,
    "db migrate": ADMIN,
}
"""By the command's first words; the longest counts."""


def database_secret(role: str) -> str:
    """The name of the Secret whose ``DATABASE_URL`` is that of ``role``."""
    return f"database-{role}"


def source_of_url(role: str) -> str:
    """Where whoever is ``role`` finds its URL, the administrator's being in no Secret."""
    if role == ADMIN:
        return "the administrator, in AWS Secrets Manager by the name kilo:database.url_secret_id"
    return f"the Secret {database_secret(role)}"


def refusal(error: Exception, arguments: Sequence[str]) -> str:
    """Whom the database refused and what, by its own first line, which names the table and quotes no row.

    Args:
        error: the driver's.
        arguments: the command line behind ``kilo``.
    """
    said = str(error).partition("\n")[0]
    login = urlsplit(os.environ.get(DATABASE_VARIABLE, "")).username
    return f"{DATABASE_VARIABLE}: {said}{f', as {login}' if login else ''}; {role_hint(arguments)}"


def role_hint(arguments: Sequence[str]) -> str:
    """What would be right for a command whose role the database refuses.

    Args:
        arguments: the command line behind ``kilo``.
    """
    words = [each for each in arguments if not each.startswith("-")]
    for count in range(len(words), 0, -1):
        command = " ".join(words[:count])
        if role := ROLES_OF_COMMANDS.get(command):
            return f"`kilo {command}` takes the DATABASE_URL of {source_of_url(role)}"
    return "docs/runbooks/README.md says of which Secret a command takes the DATABASE_URL"
