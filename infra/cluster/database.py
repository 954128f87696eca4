"""The database's schema and roles. The database itself is given by URL."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pulumi

import kilo
from components.pods.runtime_pod import RuntimeContext
from components.processes.database_roles import DatabaseRoles, DatabaseRolesArgs


def create_database(
    context: RuntimeContext, admin_url: pulumi.Output[str], opts: pulumi.ResourceOptions
) -> DatabaseRoles:
    """Register the migration, and the Secret of each role."""
    return DatabaseRoles(
        "database",
        DatabaseRolesArgs(context=context, admin_url=admin_url, schema_checksum=schema_checksum()),
        opts,
    )


def schema_checksum() -> str:
    """SHA-256 over the migrations' names and texts, in hexadecimal."""
    digest = hashlib.sha256()
    # By path: importing the migrator would bring a database driver into the program.
    for file in sorted((Path(kilo.__file__).parent / "database" / "migrations").glob("*.sql")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
