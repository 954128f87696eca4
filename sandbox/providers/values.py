"""Property values between the engine's wire format and plain Python.

Integral numbers become ``int``, since the wire knows only doubles and every cloud API tells them
apart. The engine is told that these providers take no secrets, so it takes secrecy off before a call
and puts it back on every output whose input was secret; :class:`Secret` marks what is secret without
such an input, a generated password for one.

The wire format is that of the engine's ``ResourceProvider`` protocol: a ``google.protobuf.Struct`` in
which a fixed string stands for an unknown and a signature key tells a secret from an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime.rpc import UNKNOWN as WIRE_UNKNOWN

Value = Any
"""None, bool, int, float, str, a list or a str-keyed dict of values, :data:`UNKNOWN` or :class:`Secret`."""

Properties = dict[str, Value]

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SEALED: Final = "1b47061264138c4ac30d75fd1eb44270"


class _Unknown:
    """The value of a property that only an update will know."""

    def __repr__(self) -> str:
        return "<known after the update>"

    def __deepcopy__(self, memo: object) -> _Unknown:
        return self


UNKNOWN: Final = _Unknown()


class Secret:
    """An output that the engine must encrypt in its state."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<secret>"


def decode(struct: struct_pb2.Struct) -> Properties:
    """Properties as plain Python values."""
    return {name: _decode(value) for name, value in struct.fields.items()}


def _decode(value: struct_pb2.Value) -> Value:  # noqa: PLR0911 - one a kind
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == WIRE_UNKNOWN else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        if _SIGNATURE in fields and fields[_SIGNATURE].string_value == _SEALED:
            return _decode(fields["value"])
        return {name: _decode(item) for name, item in fields.items()}
    return None


def encode(properties: Mapping[str, Value]) -> struct_pb2.Struct:
    """Properties in the wire format; a None is left out, as the official providers do."""
    return struct_pb2.Struct(
        fields={name: _encode(value) for name, value in properties.items() if value is not None}
    )


def _encode(value: Value) -> struct_pb2.Value:  # noqa: PLR0911 - one a kind
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Secret():
            fields = {
                _SIGNATURE: struct_pb2.Value(string_value=_SEALED),
                "value": _encode(value.value),
            }
            return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
        case _Unknown():
            return struct_pb2.Value(string_value=WIRE_UNKNOWN)
        case Mapping():
            return struct_pb2.Value(struct_value=encode(value))
        case _:
            items = [_encode(item) for item in value]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))


def has_unknown(value: Value) -> bool:
    """Whether an unknown lies anywhere in ``value``."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return value is UNKNOWN
