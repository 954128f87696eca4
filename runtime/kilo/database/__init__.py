"""The database: its schema and roles, leases, and sessions with limits.

:func:`kilo.database.migrator.migrate` runs ordered SQL files once each, before them the roles, after them
what the stage declares (the publication, the slot, which aggregates go by change capture).
Down migrations are left out on purpose: a step back in production is a new step forward.
"""
