"""PostgreSQL's array literals, written at a tenth of the driver's cost a value.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO. The statement casts them: ``%(new)s::text[]``.
"""

from __future__ import annotations

from collections.abc import Iterable


def text_array(values: Iterable[str | None]) -> str:
    """The literal of a ``text[]``."""
    return "{" + ",".join(["NULL" if each is None else f'"{_escaped(each)}"' for each in values]) + "}"


def bytea_array(values: Iterable[bytes]) -> str:
    """The literal of a ``bytea[]``."""
    return "{" + ",".join([f'"\\\\x{each.hex()}"' for each in values]) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
