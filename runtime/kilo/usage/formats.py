"""Rows as other programs read them: CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from kilo.errors import BadInput
from kilo.extras import requires

Format = Literal["table", "csv", "json", "parquet"]
Columns = Sequence[tuple[str, type]]

_DECIMALS = 12


def write_rows(
    columns: Columns, rows: Sequence[Sequence[Any]], form: Format, output: Path | None = None
) -> None:
    """Write ``rows`` to ``output``, or print them.

    Raises:
        BadInput: the file can't be written, or Parquet has none.
    """
    if form == "parquet":
        if output is None:
            msg = "--format parquet: a terminal can't show it; name a file with --output"
            raise BadInput(msg)
        _write_parquet(columns, rows, output)
        return
    names = [name for name, _ in columns]
    if form == "json":
        listed = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
        text = json.dumps(listed, indent=2) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(value) for value in row] for row in rows)
        text = buffer.getvalue()
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(output, error) from error


def _unwritable(output: Path, error: OSError) -> BadInput:
    return BadInput(f"--output {output}: can't be written ({error.strerror or error})")


def _text(value: Any) -> str:
    """As CSV has it; nothing where there is no value."""
    match value:
        case None:
            return ""
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        case Decimal():
            return _decimal(value)
        case float():
            return f"{value:.6f}"
        case _:
            return str(value)


def _plain(value: Any) -> Any:
    """As JSON has it: a decimal is text, since a number would be rounded by who reads it."""
    return value if value is None or isinstance(value, (int, float, str)) else _text(value)


def _decimal(value: Decimal) -> str:
    text = f"{value:.{_DECIMALS}f}".rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest:0<2}"


def _write_parquet(columns: Columns, rows: Sequence[Sequence[Any]], output: Path) -> None:
    with requires("parquet"):
        from arro3.core import Array, DataType, Table  # noqa: PLC0415  an extra of its own
        from arro3.io import write_parquet  # noqa: PLC0415

    text = DataType.utf8()
    kinds = {
        int: DataType.int64(),
        float: DataType.float64(),
        Decimal: DataType.decimal128(38, _DECIMALS),
        datetime: DataType.timestamp("us", tz="UTC"),
    }
    arrays: list[Any] = []
    for place, (_, kind) in enumerate(columns):
        values = [None if row[place] is None else _text(row[place]) for row in rows]
        # By way of text, which it casts to every type, decimals to their last digit.
        array = Array(values, type=text)
        arrays.append(array.cast(kinds[kind]) if kind in kinds else array)
    table = Table.from_arrays(arrays, names=[name for name, _ in columns])
    try:
        write_parquet(table, output)
    except OSError as error:
        raise _unwritable(output, error) from error
