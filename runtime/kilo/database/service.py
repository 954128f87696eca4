"""The migrations of a service: its own .sql files, once each, recorded under the service's name.

As with the platform's own (:mod:`kilo.database.migrator`), a file that was changed after it ran is refused,
and two copies that run at once wait for each other. Left out on purpose: roles, which are the stage's, and
steps back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kilo.database.migrator import Migration, MigrationReport, apply_new, open_database


def migrate_service(database_url: str, directory: Path, service: str) -> MigrationReport:
    """Run what is new in ``directory``, each file with its record.

    Args:
        database_url: as a role that may make tables.
        directory: .sql files, run in the order of their names.
        service: whose they are; two services of one database don't meet.

    Raises:
        BadInput: a file that ran was changed since, or one fails; of those before it, all are done.
        Unreachable: the database does not answer.
    """
    files = [
        Migration(each.name, each.read_text(encoding="utf-8")) for each in sorted(directory.glob("*.sql"))
    ]
    with open_database(database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_lock(service),))
        return apply_new(connection, files, f"{service.replace('-', '_')}_migrations")


def _lock(service: str) -> int:
    """An advisory lock's number of the service's own."""
    digest = hashlib.sha256(f"kilo migrations of {service}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
