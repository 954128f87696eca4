"""The database's schema and roles.

:func:`migrate` is all there is: ordered SQL files run once each, before them the roles, after them what
the stage's configuration declares (the publication, the slot, which aggregates go by change capture).
Down migrations are left out on purpose: a step back in production is a new step forward.
"""

from kilo.database.migrator import MigrationReport, migrate
from kilo.database.roles import ROLES

__all__ = ["ROLES", "MigrationReport", "migrate"]
