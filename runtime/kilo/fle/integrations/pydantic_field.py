"""pydantic models with encrypted fields: plain in the object, encrypted where they are written.

A field's type says which field of the stage it is, and the class says which stage::

    class Customer(EncryptedModel, outputs=load_outputs()):
        id: int
        email: Annotated[str, Encrypted("email")]
        phone: Annotated[str, Encrypted("phone")] | None = None

    context = RowContext(cipher, tenant="acme", row_id=7)
    customer = Customer.model_validate(row, context=context)   # what was stored
    customer.model_dump(context=context)                       # what is stored
    Customer(id=7, email="ana@example.com")                  # what a person gave

With a :class:`RowContext` as context a model is read from and written to storage: a plain value where an
encrypted one is due is refused. Without one, values are plain, an encrypted one is refused, and dumping is.
A name that the outputs don't know is refused when the class is made. No value shows in ``repr`` nor in a
validation error; only a model around it that is no :class:`EncryptedModel` would show its input.

Left out: encrypted values in lists and mappings. They would share one binding, and could be exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    FieldSerializationInfo,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.fle.cipher import FieldCipher
from kilo.fle.formats import RowId, is_encrypted
from kilo.fle.scope import check_known, known_fields

_HIDDEN = "(hidden)"
_OF_VALIDATORS = frozenset(("value_error", "assertion_error"))


@dataclass(frozen=True, slots=True)
class RowContext:
    """The row that a model is read from and written to: ``cipher`` is bound to the table."""

    cipher: FieldCipher
    tenant: str
    row_id: RowId


@dataclass(frozen=True, slots=True)
class Encrypted:
    """The mark of text that is the stage's field ``name``: ``Annotated[str, Encrypted("email")]``."""

    name: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = core_schema.with_info_wrap_validator_function(self._open, handler(source))
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(
            self._seal, is_field_serializer=True, info_arg=True, return_schema=core_schema.str_schema()
        )
        return schema

    def _open(self, value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if not (info.config or {}).get("hide_input_in_errors"):
            msg = f"an encrypted field ({self.name}) belongs into an EncryptedModel"
            raise TypeError(msg)
        context = info.context
        if isinstance(context, RowContext):
            if value is not None and self.name in context.cipher.revealed_fields(context.tenant):
                value = context.cipher.reveal_value(context.tenant, self.name, context.row_id, value)
        elif isinstance(value, str) and is_encrypted(value):
            # Taken for plain, it would be encrypted once more when the model is written again.
            kind, msg = "context_missing", "an encrypted value is read with a RowContext as its context"
            raise PydanticCustomError(kind, msg)
        return handler(value)

    def _seal(self, model: Any, value: Any, info: FieldSerializationInfo) -> str:
        context = info.context
        if not isinstance(model, EncryptedModel) or not isinstance(context, RowContext):
            msg = "an encrypted field is dumped from an EncryptedModel, with a RowContext as its context"
            raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as its own serialization error
        if not isinstance(value, str):
            msg = f"{self.name}: an encrypted field is text, not {type(value).__name__}"
            raise ValueError(msg)  # noqa: TRY004 - as above
        if self.name not in context.cipher.protected_fields(context.tenant):
            return value
        return context.cipher.encrypt(context.tenant, self.name, context.row_id, value)


class EncryptedModel(BaseModel):
    """Base of models with encrypted fields.

    Args:
        outputs: given with the class, ``class Customer(EncryptedModel, outputs=…)``: the stack's outputs,
            which say what is encrypted. A class that has none of its own takes its base's.

    Raises:
        BadInput: when the class is made: a field that the outputs don't know, that two attributes share, or
            that lies in a list or a mapping.
    """

    model_config = ConfigDict(hide_input_in_errors=True)
    __kilo_known__: ClassVar[frozenset[str] | None] = None
    __kilo_encrypted__: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, outputs: StackOutputs | None = None, **kwargs: Any) -> None:
        """Keep what the stage knows for :meth:`__pydantic_on_complete__`."""
        super().__init_subclass__(**kwargs)
        if outputs is not None:
            cls.__kilo_known__ = known_fields(outputs)

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        """See that every encrypted field has a name that the stage knows, and a binding of its own."""
        seen: dict[str, str] = {}
        for attribute, info in cls.model_fields.items():
            at = f"{cls.__name__}.{attribute}"
            for name in _encrypted(at, info.annotation, info.metadata):
                if cls.__kilo_known__ is None:
                    msg = f"{at}: name the stage: class {cls.__name__}(EncryptedModel, outputs=…)"
                    raise BadInput(msg)
                check_known(at, name, cls.__kilo_known__)
                if name in seen:
                    msg = f"{at}: {seen[name]} is the field {name!r} already; their values could be exchanged"
                    raise BadInput(msg)
                seen[name] = attribute
        cls.__kilo_encrypted__ = frozenset(seen.values())

    @model_validator(mode="wrap")
    @classmethod
    def _without_inputs(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            problem = _hide(error, cls)
        # Outside of the handler: pydantic's own error holds what it was given.
        raise problem

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **settings: Any) -> Self:
        """As :class:`pydantic.BaseModel` does; the error of what is no JSON does not hold it either."""
        try:
            return super().model_validate_json(json_data, **settings)
        except ValidationError as error:
            problem = _hide(error, cls)
        raise problem

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields, without the encrypted ones' values."""
        for name, value in super().__repr_args__():
            yield name, _Hidden() if name in type(self).__kilo_encrypted__ and value is not None else value


class _Hidden:
    def __repr__(self) -> str:
        return _HIDDEN


def _encrypted(at: str, annotation: Any, metadata: list[Any]) -> Iterator[str]:
    """The names of the marks on a field's type: itself, or one of a union with ``None``."""
    yield from (mark.name for mark in metadata if isinstance(mark, Encrypted))
    inner = get_args(annotation)
    if (
        get_origin(annotation) in {Union, UnionType}
        and len([each for each in inner if each is not NoneType]) == 1
    ):
        for each in inner:
            yield from _own(each)
    elif any(_anywhere(each) for each in (annotation, *inner)):
        msg = (
            f"{at}: an encrypted field is a model's own, alone or optional: in a list, a mapping or a union "
            "its value would have no binding of its own"
        )
        raise BadInput(msg)


def _own(annotation: Any) -> Iterator[str]:
    yield from (mark.name for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Encrypted))


def _anywhere(annotation: Any) -> bool:
    return any(True for _ in _own(annotation)) or any(map(_anywhere, get_args(annotation)))


def _hide(error: ValidationError, model: type[EncryptedModel]) -> ValidationError:
    """The same problems, without what was given."""
    hidden = {*model.__kilo_encrypted__}
    hidden |= {str(info.alias) for name, info in model.model_fields.items() if name in hidden and info.alias}
    lines: list[InitErrorDetails] = []
    for each in error.errors(include_context=False, include_input=False):
        said = each["msg"]
        if (
            each["loc"][:1]
            and each["loc"][0] in hidden
            and (each["type"] in _OF_VALIDATORS or "url" not in each)
        ):
            # A validator's own words may quote the value.
            said = "the value is not valid" if each["type"] != "context_missing" else said
        problem = PydanticCustomError(each["type"], said.replace("{", "{{").replace("}", "}}"))  # pyright: ignore[reportArgumentType]
        lines.append(InitErrorDetails(type=problem, loc=each["loc"], input=_HIDDEN))
    return ValidationError.from_exception_data(error.title, lines, hide_input=True)
