"""Tables that commands print: one style, and nothing cut at 80 columns.

A value too long for its column goes on in the next line: ids, addresses and errors are of no use shortened.
Text is shown as it is; a value with ``[`` in it is no markup, since rows hold what others wrote.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_LOG_WIDTH = 120


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    title: str | None = None,
) -> Table:
    """A table of ``rows``, without lines.

    Args:
        columns: the names; a table whose names are all empty has no header.
        rows: the values, a :class:`rich.text.Text` where one has a colour.
        numbers: columns whose values stand at the right.
        title: above the table.
    """
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        show_header=any(columns),
        title=Text(title, style="bold") if title else None,
        title_justify="left",
    )
    for name in columns:
        table.add_column(Text(name), justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(str(value)) for value in row))
    return table


def make_console() -> Console:
    """Where a table goes: a terminal (or ``COLUMNS``) says its width, a log has none and gets 120 columns."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console() if known else Console(width=_LOG_WIDTH)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    title: str | None = None,
) -> None:
    """Print :func:`make_table` of the same arguments."""
    make_console().print(make_table(columns, rows, numbers=numbers, title=title))
