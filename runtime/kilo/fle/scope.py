"""Fields that are stored encrypted and not named by the stage's configuration, or the other way round."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from kilo.contract import StackOutputs
from kilo.errors import BadInput

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


def known_fields(outputs: StackOutputs) -> frozenset[str]:
    """The fields that the stage encrypts for one tenant or other, or has an encrypted column of."""
    tables = outputs.field_encryption.tables
    columns = [name for table in tables for name in table.columns]
    inside = [name for table in tables for names in table.documents.values() for name in names]
    return frozenset(columns + inside).union(*(each.encrypted_fields for each in outputs.tenants.values()))


def check_known(place: str, field: str, known: Collection[str]) -> None:
    """Refuse a field's name that the stage does not know, which would stay plain for everybody.

    Raises:
        BadInput: the stage encrypts other fields, and not this one.
    """
    if known and field not in known:
        msg = (
            f"{place}: the stage's outputs encrypt no field {field!r}, so it would be stored in plain; they "
            f"know {', '.join(sorted(known))} (tenants' encrypted_fields, field_encryption.tables)"
        )
        raise BadInput(msg)
