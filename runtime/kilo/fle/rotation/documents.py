"""The encrypted values inside a batch of JSON documents: taken out by field, converted, put back.

Numbers and the order of keys stay as they were (:mod:`kilo.outbox.strict_json`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilo.fle.formats import DocumentRow
from kilo.fle.rotation.convert import Converter
from kilo.outbox import strict_json
from kilo.sensitive import places


@dataclass(frozen=True, slots=True)
class Cell:
    """One value: the document's position in the batch, the object that holds it, its field, its row."""

    at: int
    holder: dict[str, Any]
    field: str
    row: DocumentRow

    @property
    def value(self) -> str:
        """The value as it is stored."""
        return self.holder[self.field]


@dataclass
class ConvertedDocuments:
    """The new texts by position, the evidence of their values, and what could not be read."""

    new: dict[int, str] = field(default_factory=dict[int, str])
    evidence: list[bytes] = field(default_factory=list[bytes])
    failed: list[str] = field(default_factory=list[str])


def parse_document(row: str, text: str, fields: Sequence[str], at: int = 0) -> tuple[Any, list[Cell]]:
    """The document and its values.

    Raises:
        NotStrict: the text is JSON that can't be written again as it was.
    """
    document = strict_json.parse(text)
    found: Iterator[tuple[dict[str, Any], str, str]] = places(frozenset(fields), document)
    return document, [Cell(at, holder, name, DocumentRow(row, pointer)) for holder, name, pointer in found]


def convert_documents(
    converter: Converter, fields: Sequence[str], rows: Sequence[str], texts: Sequence[str | None]
) -> ConvertedDocuments:
    """Convert one document column of a batch; raises as :meth:`Converter.convert` does."""
    result = ConvertedDocuments()
    documents: dict[int, Any] = {}
    by_field: dict[str, list[Cell]] = {name: [] for name in fields}
    for at, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if text is None:
            continue
        try:
            documents[at], found = parse_document(row, text, fields, at)
        except strict_json.NotStrict as error:
            result.failed.append(f"row {row}: {error.problem}")
            continue
        for cell in found:
            by_field[cell.field].append(cell)
    changed: set[int] = set()
    for name, found in by_field.items():
        converted = converter.convert(name, [cell.row for cell in found], [cell.value for cell in found])
        for position, value in zip(converted.at, converted.new, strict=True):
            cell = found[position]
            cell.holder[name] = value
            changed.add(cell.at)
        result.evidence += converted.evidence
        result.failed += converted.failed
    result.new = {at: strict_json.write(documents[at]) for at in changed}
    return result
