"""The database's schema and roles. The database itself is given by URL."""

from __future__ import annotations

import pulumi

from components.pods.runtime_pod import RuntimeContext
from components.processes.database_roles import DatabaseRoles, DatabaseRolesArgs, schema_checksum
from infra.settings import Settings


def create_database(
    settings: Settings,
    context: RuntimeContext,
    admin_url: pulumi.Output[str],
    opts: pulumi.ResourceOptions,
) -> DatabaseRoles:
    """Register the migration, and the Secret of each role."""
    return DatabaseRoles(
        "database",
        DatabaseRolesArgs(
            context=context,
            admin_url=admin_url,
            schema_checksum=schema_checksum(),
            usage=settings.usage,
            former_accepted=settings.database.credentials.former_accepted,
        ),
        opts,
    )
