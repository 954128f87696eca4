"""An encrypted column type for SQLAlchemy (``pip install kilo[sqlalchemy]``).

A column's type sees a value without its row, and what encryption binds must come from somewhere: so
values go in as :class:`Clear`, which says whose they are, and come out as :class:`Sealed`, which opens
when told the same. A bare string is refused, so plain text can't slip into the column::

    class Customer(Base):
        tenant: Mapped[str]
        email: Mapped[Sealed | Clear | None] = mapped_column(
            EncryptedText(cipher, "email", index=BlindIndex(cipher.keyring, "customers", "email", "email"))
        )
        email_token: Mapped[str | None]

    customer.email = Clear("acme", customer.id, "ana@example.com")
    customer.email.reveal("acme", customer.id)
    select(Customer).where(Customer.email == Clear("acme", None, "ana@example.com"))

With ``index`` such a comparison searches the token column; without one it raises, and so does every other
one but with ``None``. When the ORM stores an object it writes the token, and refuses a value of another
tenant or row. Statements of Core and bulk inserts pass by the ORM's objects: nothing is compared there, and
the token is the caller's to give.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from kilo.errors import BadInput
from kilo.extras import requires
from kilo.fle.cipher import FieldCipher
from kilo.fle.deterministic import BlindIndex
from kilo.fle.formats import RowId
from kilo.fle.scope import check_known

with requires("sqlalchemy"):
    from sqlalchemy import Column, ColumnElement, Text, event, inspect
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.exc import DontWrapMixin
    from sqlalchemy.orm import Mapper
    from sqlalchemy.sql import operators
    from sqlalchemy.types import TypeDecorator


class NotEncryptable(BadInput, DontWrapMixin):
    """A value that no encrypted column takes. SQLAlchemy, which quotes parameters, does not wrap it."""


@dataclass(frozen=True, slots=True)
class Clear:
    """A plain value on its way into an encrypted column, or searched for (``row_id`` then is not looked at).

    ``repr`` does not show the value.
    """

    tenant: str
    row_id: RowId | None
    value: str = field(repr=False)

    def reveal(self, tenant: str, row_id: RowId) -> str:
        """The value, so that an object reads the same before and after it is stored.

        Raises:
            NotEncryptable: it was given for another tenant or row.
        """
        if tenant != self.tenant or str(row_id) != str(self.row_id):
            msg = f"a value given for a row of {self.tenant} is read as one of another row or tenant"
            raise NotEncryptable(msg)
        return self.value


class Sealed:
    """An encrypted value as it came out of the column."""

    __slots__ = ("_cipher", "_field", "stored")

    def __init__(self, cipher: FieldCipher, name: str, stored: str) -> None:
        self._cipher, self._field, self.stored = cipher, name, stored

    def reveal(self, tenant: str, row_id: RowId) -> str:
        """Decrypt; raises one of :mod:`kilo.fle.errors`."""
        return str(self._cipher.reveal(tenant, {self._field: self.stored}, row_id)[self._field])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored)


class EncryptedText(TypeDecorator[Any]):
    """A text column with encrypted values.

    Args:
        cipher: bound to the column's table.
        name: the field.
        index: how values are searched; none when they can't be.
        token_column: the column of the same table with the index's tokens; by default ``<name>_token``.
        tenant: the attribute of a mapped object with its tenant.
        row: the attribute with the row's identity.

    Raises:
        BadInput: the stage knows no such field.
    """

    impl = Text
    cache_ok = False

    def __init__(
        self,
        cipher: FieldCipher,
        name: str,
        *,
        index: BlindIndex | None = None,
        token_column: str = "",
        tenant: str = "tenant",
        row: str = "id",
    ) -> None:
        super().__init__()
        check_known(f"EncryptedText of {cipher.table}", name, cipher.known_fields)
        self.cipher, self.name, self.index = cipher, name, index
        self.token_column = token_column or f"{name}_token"
        self.tenant, self.row = tenant, row

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encrypt on the way in."""
        del dialect
        if value is None:
            return None
        if isinstance(value, Sealed):
            return value.stored
        if not isinstance(value, Clear):
            raise _not_clear(self, value)
        if value.row_id is None:
            msg = f"{self.name}: the row's identity is part of what is encrypted: give Clear a row_id"
            raise NotEncryptable(msg)
        record = self.cipher.protect(value.tenant, {self.name: value.value}, value.row_id)
        return str(record[self.name])

    def process_result_value(self, value: Any, dialect: Dialect) -> Sealed | None:
        """Keep it sealed on the way out: only the row's reader knows whose it is."""
        del dialect
        return None if value is None else Sealed(self.cipher, self.name, value)

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:
        """Refused: a statement's text is logged."""
        del value, dialect
        msg = f"{self.name}: an encrypted value is no literal of a statement"
        raise NotEncryptable(msg)

    class Comparator(TypeDecorator.Comparator[Any], Text.comparator_factory):  # type: ignore[misc]
        """Comparisons of an encrypted column: with ``None``, or by the index's tokens."""

        def operate(self, op: Callable[..., Any], *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """See :class:`EncryptedText`."""
            kind: Any = self.type
            equality = op in {operator.eq, operator.ne}
            if op in {operators.is_, operators.is_not} or (equality and other[0] is None):
                return super().operate(op, *other, **kwargs)
            if equality:
                return _search(kind, self.expr, [other[0]], negated=op is operator.ne)
            if op in {operators.in_op, operators.not_in_op} and isinstance(other[0], list | tuple | set):
                return _search(kind, self.expr, other[0], negated=op is operators.not_in_op)
            raise _not_comparable(kind)

        def reverse_operate(self, op: Callable[..., Any], other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refused: there is none that a token could answer."""
            del op, other, kwargs
            raise _not_comparable(self.type)

    comparator_factory = Comparator  # pyright: ignore[reportAssignmentType]


def _not_clear(kind: EncryptedText, value: Any) -> NotEncryptable:
    return NotEncryptable(f"{kind.name}: give Clear(tenant, row_id, value), not {type(value).__name__}")


def _not_comparable(kind: Any) -> NotEncryptable:
    return NotEncryptable(
        f"{kind.name}: an encrypted column is compared with None, or with Clear(tenant, None, value) by =="
        " and in_ where its type has an index: equal values are encrypted differently, and have no order"
    )


def _search(kind: EncryptedText, column: Any, values: Iterable[Any], *, negated: bool) -> ColumnElement[Any]:
    wanted = list(values)
    if kind.index is None or not all(isinstance(each, Clear) for each in wanted):
        raise _not_comparable(kind)
    if negated and kind.index.bits < 256:
        msg = f"{kind.name}: several values share a token of {kind.index.bits} bits: filter after reading"
        raise NotEncryptable(msg)
    tokens = _tokens(kind, column)
    found = [token for each in wanted for token in kind.index.tokens(each.tenant, each.value)]
    return tokens.not_in(found) if negated else tokens.in_(found)


def _tokens(kind: EncryptedText, column: Any) -> Any:
    tokens = column.table.c.get(kind.token_column)
    if tokens is None:
        msg = f"{kind.name}: the table {column.table} has no column {kind.token_column} for its tokens"
        raise NotEncryptable(msg)
    return tokens


_attributes: WeakKeyDictionary[Mapper[Any], list[tuple[str, Column[Any], EncryptedText]]] = (
    WeakKeyDictionary()
)


def _encrypted(mapper: Mapper[Any]) -> list[tuple[str, Column[Any], EncryptedText]]:
    """The encrypted attributes of a class, with their columns."""
    found = _attributes.get(mapper)
    if found is None:
        found = _attributes[mapper] = [
            (each.key, column, column.type)
            for each in mapper.column_attrs
            for column in each.columns
            if isinstance(column, Column) and isinstance(column.type, EncryptedText)
        ]
    return found


def _check(mapper: Mapper[Any], _connection: Connection, target: Any) -> None:
    """Before an object is stored: refuse values of another tenant or row, and write the others' tokens."""
    for key, column, kind in _encrypted(mapper):
        attributes = inspect(target).attrs
        try:
            places = [attributes[kind.tenant], attributes[kind.row]]
        except KeyError as error:
            msg = f"{kind.name}: {mapper.class_.__name__} has no {error}: name its tenant and row in the type"
            raise NotEncryptable(msg) from None
        # What is not loaded is not written.
        if key not in target.__dict__ or not any(
            each.history.has_changes() for each in (attributes[key], *places)
        ):
            continue
        value, (tenant, row) = target.__dict__[key], [each.value for each in places]
        plain: str | None = None
        if isinstance(value, Clear):
            if value.tenant != tenant or row is None or str(value.row_id) != str(row):
                msg = (
                    f"{kind.name}: the value is given for a row of {value.tenant} and stored in another row"
                    f" or tenant: give Clear the object's own {kind.tenant} and {kind.row}, which must be"
                    " known before it is stored"
                )
                raise NotEncryptable(msg)
            plain = value.value
        elif isinstance(value, Sealed):
            # From another object, or of an object that was given to another: it opens only where it belongs.
            plain = value.reveal(tenant, row)
        elif value is not None:
            raise _not_clear(kind, value)
        if kind.index is not None:
            token = None if plain is None else kind.index.token(tenant, plain)
            prop = mapper.get_property_by_column(_tokens(kind, column))
            setattr(target, prop.key, token)


event.listen(Mapper, "before_insert", _check)
event.listen(Mapper, "before_update", _check)
