"""What a batch of rows becomes: encrypted values under another key, by field or inside documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kilo.fle.formats import V1
from kilo.fle.rotation.columns import Columns, prefixes
from kilo.fle.rotation.convert import Converter
from kilo.fle.rotation.documents import convert_documents


@dataclass
class Rewritten:
    """A batch's changes.

    Attributes:
        touched: positions of the rows that change.
        arrays: the statement's arrays by parameter, one element a row.
        evidence: of each value that changes.
        failed: values that can't be read, each with its row.
    """

    touched: set[int] = field(default_factory=set[int])
    arrays: dict[str, list[str | None]] = field(default_factory=dict[str, list[str | None]])
    evidence: list[bytes] = field(default_factory=list[bytes])
    failed: list[str] = field(default_factory=list[str])


class Rewriter(Protocol):
    """How the rows of one table and tenant are rewritten."""

    columns: Columns
    tenant: str

    def done(self) -> list[str]:
        """How values begin that need no rewriting."""
        ...

    def rewrite(self, ids: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rewritten:
        """The changes of a batch; ``rows`` are as the columns' query gives them."""
        ...


class ValueRewriter:
    """Converts the encrypted values of a table."""

    def __init__(self, columns: Columns, converter: Converter) -> None:
        self.columns, self.tenant, self._converter = columns, converter.tenant, converter

    def done(self) -> list[str]:
        """See :class:`Rewriter`."""
        key = self._converter.key()
        if self._converter.plain:
            # What is taken as plain may begin so as well.
            return []
        return prefixes(key.key_id) if key is not None and key.format != V1 else []

    def rewrite(self, ids: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rewritten:
        """See :class:`Rewriter`; raises as :meth:`Converter.convert` does."""
        result, spec = Rewritten(), self.columns.spec
        for number, name in enumerate(self.columns.fields):
            old: list[str | None] = [row[number + 1] for row in rows]
            converted = self._converter.convert(name, ids, old)
            new = list(old)
            for position, value in zip(converted.at, converted.new, strict=True):
                new[position] = value
            result.touched.update(converted.at)
            result.evidence += converted.evidence
            result.failed += converted.failed
            result.arrays[f"old{number}"], result.arrays[f"new{number}"] = old, new
        for number, name in enumerate(self.columns.documents, len(self.columns.fields)):
            texts: list[str | None] = [row[number + 1] for row in rows]
            documents = convert_documents(self._converter, spec.documents[name], ids, texts)
            result.touched.update(documents.new)
            result.evidence += documents.evidence
            result.failed += documents.failed
            result.arrays[f"old{number}"] = texts
            result.arrays[f"new{number}"] = [documents.new.get(at, text) for at, text in enumerate(texts)]
        return result
