"""Fields that lie encrypted and that the stage's configuration does not name, or the other way round."""

from __future__ import annotations

import logging
from collections.abc import Iterable

_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()


def warn_kept(tenant: str, fields: Iterable[str]) -> None:
    """Say once in a process which fields stay encrypted though the configuration does not name them."""
    for field in sorted(fields):
        if (tenant, field) not in _warned:
            _warned.add((tenant, field))
            _log.warning("%s", kept(tenant, field))


def kept(tenant: str, field: str) -> str:
    """What is wrong with a field that lies encrypted and is not in the configuration, and what mends it."""
    return (
        f"{tenant}/{field} lies encrypted, stays so, and is not among the tenant's encrypted_fields: put "
        f"it back, or run `kilo fle rotate plan --tenant {tenant} --kind release --field {field}` to its end"
    )


def plain(tenant: str, field: str) -> str:
    """What is wrong with a field of the configuration that has plain values, and what mends it."""
    return (
        f"{tenant}/{field} is among the tenant's encrypted_fields and has plain values, which readers "
        f"refuse: run `kilo fle rotate plan --tenant {tenant} --kind adopt` to its end"
    )
