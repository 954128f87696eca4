"""What a process reads from its environment besides the stack's outputs."""

from __future__ import annotations

import os

from kilo.errors import BadInput

OUTPUTS_VARIABLE = "KILO_OUTPUTS"
POD_VARIABLE = "POD_IP"
"""The address of the pod that this process is in."""
DATABASE_VARIABLE = "DATABASE_URL"
URL_SECRET_VARIABLE = "DATABASE_URL_SECRET"  # noqa: S105  a name
"""The secret of AWS Secrets Manager that has the administrator's URL; of the Job that migrates alone."""
FROM_DATABASE_VARIABLE = "KILO_FROM_DATABASE_URL"
FROM_OUTPUTS_VARIABLE = "KILO_FROM_OUTPUTS"
"""Database and outputs of the stage that a promotion comes from; the others are those of where it goes."""
AUDIT_KEY_VARIABLE = "KILO_FLE_AUDIT_KEY"
"""The key that signs checkpoints of the audit log, in PEM."""
EVENT_SCHEMAS_VARIABLE = "KILO_EVENT_SCHEMAS"
"""A directory of schemas (:mod:`kilo.schemas`) to which events are held that are written and handled."""
GATEWAY_ALONE_VARIABLE = "KILO_GATEWAY_ALONE"
"""Runs the Pulumi program for the gateway alone; names a file with the outputs that the stack has."""


def database_url() -> str:
    """The database's URL with the credentials of this process's own role.

    Raises:
        BadInput: ``DATABASE_URL`` is not set.
    """
    url = os.environ.get(DATABASE_VARIABLE, "")
    if not url.startswith(("postgresql://", "postgres://")):
        found = "not a PostgreSQL URL" if url else "not set (a dev stage that is up sets it: kilo up)"
        msg = f"{DATABASE_VARIABLE}: {found}; it takes postgresql://USER:PASSWORD@HOST:PORT/NAME"
        raise BadInput(msg)
    return url


def bind_address() -> str:
    """The address to listen on: the pod's own, or loopback outside a pod."""
    return os.environ.get(POD_VARIABLE) or "127.0.0.1"
