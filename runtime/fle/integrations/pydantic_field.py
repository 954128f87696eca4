"""A pydantic field type: plain in the object, encrypted where it is written.

The model is validated and dumped with a :class:`Place` as context; without one, dumping is refused, so
that a model can't be written in plain by forgetting::

    class Customer(BaseModel):
        id: int
        email: EncryptedStr

    place = Place(cipher, tenant="acme", row_id=7)
    customer = Customer.model_validate(row, context=place)
    customer.model_dump(context=place)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo, ValidationInfo

from runtime.fle.cipher import FieldCipher
from runtime.fle.formats import RowId, is_encrypted


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's values belong: ``cipher`` is bound to the table."""

    cipher: FieldCipher
    tenant: str
    row_id: RowId


def _open(value: Any, info: ValidationInfo) -> Any:
    place = info.context
    if not isinstance(place, Place) or not isinstance(value, str) or not is_encrypted(value):
        return value
    return place.cipher.decrypt(place.tenant, _name(info.field_name), place.row_id, value)


def _seal(value: str, info: SerializationInfo) -> str:
    place = info.context
    if not isinstance(place, Place):
        msg = "an encrypted field is dumped with a Place as context"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as its own serialization error
    field = _name(info.field_name)  # pyright: ignore[reportAttributeAccessIssue]
    if field not in place.cipher.encrypted_fields(place.tenant):
        return value
    return place.cipher.encrypt(place.tenant, field, place.row_id, value)


def _name(name: str | None) -> str:
    if name is None:
        msg = "EncryptedStr is for a model's own field: a value in a list has no name to bind"
        raise TypeError(msg)
    return name


EncryptedStr = Annotated[str, BeforeValidator(_open), PlainSerializer(_seal)]
"""Text that is decrypted on validation and encrypted on dumping, for tenants whose scope has the field."""
