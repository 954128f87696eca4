"""The database's schema and roles. The database itself is there already."""

from __future__ import annotations

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.database_address import DatabaseAddress
from components.pods.runtime_pod import RuntimeContext
from components.processes.database_roles import (
    CloudAdministrator,
    DatabaseRoles,
    DatabaseRolesArgs,
    schema_checksum,
)
from infra.settings import Database, Settings


def create_database(
    settings: Settings, context: RuntimeContext, identity: CloudIdentity, opts: pulumi.ResourceOptions
) -> DatabaseRoles:
    """Register the migration, which reads the administrator's URL as ``identity``, and each role's Secret."""
    return DatabaseRoles(
        "database",
        DatabaseRolesArgs(
            context=context,
            administrator=CloudAdministrator(settings.database.url_secret_id, identity),
            schema_checksum=schema_checksum(),
            usage=settings.usage,
            former_accepted=settings.database.credentials.former_accepted,
        ),
        opts,
    )


def database_address(database: Database) -> DatabaseAddress:
    """Where the stage's database is."""
    return DatabaseAddress(
        database.host, database.port, database.name, database.sslmode, has_ca=database.ca is not None
    )
