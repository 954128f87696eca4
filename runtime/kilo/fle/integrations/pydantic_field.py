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

from pydantic import BeforeValidator, FieldSerializationInfo, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import core_schema

from kilo.fle.cipher import FieldCipher
from kilo.fle.formats import RowId, is_encrypted


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's values belong: ``cipher`` is bound to the table."""

    cipher: FieldCipher
    tenant: str
    row_id: RowId


def _open(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not is_encrypted(value):
        return value
    place = info.context
    if not isinstance(place, Place):
        # Taken for plain, it would be encrypted once more when the model is written again.
        msg = "an encrypted value is read with a Place as context"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as its own validation error
    return place.cipher.decrypt(place.tenant, _name(info.field_name), place.row_id, value)


def _seal(model: Any, value: str, info: FieldSerializationInfo) -> str:
    del model
    place = info.context
    if not isinstance(place, Place):
        msg = "an encrypted field is dumped with a Place as context"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as its own serialization error
    field = _name(info.field_name)
    if field not in place.cipher.protected_fields(place.tenant):
        return value
    return place.cipher.encrypt(place.tenant, field, place.row_id, value)


def _name(name: str | None) -> str:
    if name is None:
        msg = "EncryptedStr is for a model's own field: a value in a list has no name to bind"
        raise TypeError(msg)
    return name


class _Sealed:
    """The serializer, as one of a field: others are not told the field's name."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(
            _seal, is_field_serializer=True, info_arg=True, return_schema=core_schema.str_schema()
        )
        return schema


EncryptedStr = Annotated[str, BeforeValidator(_open), _Sealed()]
"""Text that is decrypted on validation and encrypted on dumping, for tenants whose scope has the field."""
