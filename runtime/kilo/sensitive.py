"""A payload's sensitive fields, at any depth: hidden before it is stored, revealed for a handler.

The row that a value is bound to is the event's fingerprint and, apart from it, the JSON pointer (RFC 6901) of
the object that holds the field. So a value can be moved neither to another event
nor to another place in its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from kilo.fle.formats import DocumentRow, RowId, is_encrypted
from kilo.fle.frames import clears_frames_async
from kilo.outbox import strict_json

TABLE = "events"
"""What values are bound to besides the row: the table that ingest stores them in."""


class PayloadCipher(Protocol):
    """What :class:`kilo.fle.AsyncFieldCipher` has of use here."""

    async def protected_fields(self, tenant: str) -> frozenset[str]:
        """The fields that are encrypted for ``tenant``."""
        ...

    async def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str) -> str:
        """Encrypt one value."""
        ...

    async def revealed_fields(self, tenant: str) -> frozenset[str]:
        """The fields whose values may be encrypted."""
        ...

    async def reveal_value(self, tenant: str, field: str, row_id: RowId, value: object) -> object:
        """Decrypt one value; while the tenant moves into scope or out of it, a plain one passes."""
        ...


@clears_frames_async
async def hide(cipher: PayloadCipher, tenant: str, fingerprint: str, payload: Mapping[str, Any]) -> Any:
    """A copy of ``payload`` with the tenant's encrypted fields encrypted."""
    fields = await cipher.protected_fields(tenant)
    return await _each(
        payload, fields, "", lambda at, f, v: cipher.encrypt(tenant, f, DocumentRow(fingerprint, at), v)
    )


@clears_frames_async
async def reveal(cipher: PayloadCipher, tenant: str, fingerprint: str, payload: Any) -> Any:
    """A copy of ``payload`` as it came in."""
    fields = await cipher.revealed_fields(tenant)
    return await _each(
        payload, fields, "", lambda at, f, v: cipher.reveal_value(tenant, f, DocumentRow(fingerprint, at), v)
    )


@clears_frames_async
async def is_same(
    cipher: PayloadCipher, tenant: str, fingerprint: str, stored: Any, given: Mapping[str, Any]
) -> bool:
    """Whether the payload ``stored``, encrypted as it was when it was stored, is the plain one ``given``.

    Which fields are encrypted may have changed in between: a value that is stored as it was given is the
    same, whether or not its field is encrypted by now.

    Raises:
        FieldError: an encrypted value can't be decrypted now.
    """
    fields = await cipher.protected_fields(tenant) | await cipher.revealed_fields(tenant)
    plain = {(at, field): holder[field] for holder, field, at in places(fields, given)}

    async def shown(at: str, field: str, value: str) -> object:
        if plain.get((at, field)) == value or not is_encrypted(value):
            return value
        return await cipher.reveal_value(tenant, field, DocumentRow(fingerprint, at), value)

    revealed = await _each(stored, fields, "", shown)
    return strict_json.canonical(revealed) == strict_json.canonical(given)


def without(fields: frozenset[str], value: Any) -> Any:
    """A copy of ``value`` with every one of ``fields`` empty, wherever it stands."""
    if isinstance(value, dict):
        return {
            name: None if name in fields and isinstance(each, str) else without(fields, each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [without(fields, each) for each in value]
    return value


def places(
    fields: frozenset[str], value: Any, pointer: str = ""
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every sensitive value of a payload: the object that holds it, its field, the object's pointer."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in fields and isinstance(each, str):
                yield value, name, pointer
            else:
                yield from places(fields, each, inside(pointer, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(fields, each, f"{pointer}/{number}")


def inside(pointer: str, name: str) -> str:
    """The pointer of an object's member (RFC 6901, section 3)."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


async def _each(value: Any, fields: frozenset[str], pointer: str, change: Any) -> Any:
    if not fields:
        return value
    if isinstance(value, dict):
        changed: dict[str, Any] = {}
        for name, each in value.items():
            if name in fields and isinstance(each, str):
                changed[name] = await change(pointer, name, each)
            else:
                changed[name] = await _each(each, fields, inside(pointer, name), change)
        return changed
    if isinstance(value, list):
        return [await _each(each, fields, f"{pointer}/{n}", change) for n, each in enumerate(value)]
    return value
