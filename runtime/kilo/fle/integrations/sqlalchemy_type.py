"""An encrypted column type for SQLAlchemy (``pip install kilo[sqlalchemy]``).

A column's type sees a value without its row, and what encryption binds must come from somewhere: so
values go in as :class:`Clear`, which says whose they are, and come out as :class:`Sealed`, which opens
when told the same. A bare string is refused, so plain text can't slip into the column::

    class Customer(Base):
        email: Mapped[Sealed | Clear | None] = mapped_column(EncryptedText(cipher, "email"))

    customer.email = Clear("acme", customer.id, "ana@example.com")
    customer.email.reveal("acme", customer.id)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kilo.extras import requires
from kilo.fle.cipher import FieldCipher
from kilo.fle.formats import RowId

with requires("sqlalchemy"):
    from sqlalchemy import Text
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeDecorator


@dataclass(frozen=True, slots=True)
class Clear:
    """A plain value on its way into an encrypted column; ``repr`` does not show it."""

    tenant: str
    row_id: RowId
    value: str = field(repr=False)

    def reveal(self, tenant: str, row_id: RowId) -> str:
        """The value, so that an object reads the same before and after it is stored."""
        del tenant, row_id
        return self.value


class Sealed:
    """An encrypted value as it came out of the column."""

    __slots__ = ("_cipher", "_field", "stored")

    def __init__(self, cipher: FieldCipher, name: str, stored: str) -> None:
        self._cipher, self._field, self.stored = cipher, name, stored

    def reveal(self, tenant: str, row_id: RowId) -> str:
        """Decrypt; raises one of :mod:`kilo.fle.errors`."""
        return self._cipher.decrypt(tenant, self._field, row_id, self.stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored)


class EncryptedText(TypeDecorator[Any]):
    """A text column whose values lie encrypted; ``cipher`` is bound to the column's table."""

    impl = Text
    cache_ok = False

    def __init__(self, cipher: FieldCipher, name: str) -> None:
        super().__init__()
        self._cipher, self._field = cipher, name

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encrypt on the way in."""
        del dialect
        if value is None:
            return None
        if isinstance(value, Sealed):
            return value.stored
        if not isinstance(value, Clear):
            msg = f"{self._field}: give Clear(tenant, row_id, value), not {type(value).__name__}"
            raise TypeError(msg)
        return self._cipher.encrypt(value.tenant, self._field, value.row_id, value.value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Sealed | None:
        """Keep it sealed on the way out: only the row's reader knows whose it is."""
        del dialect
        return None if value is None else Sealed(self._cipher, self._field, value)
