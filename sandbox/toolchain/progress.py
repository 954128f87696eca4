"""Progress of builds and downloads: live lines on a terminal, a plain line now and then elsewhere.

Everything goes to standard error, so that standard output stays clean for ``--json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as LiveProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

# Often enough that a silent job is not taken for a dead one, seldom enough for a log to stay readable.
PLAIN_INTERVAL_SECONDS = 10.0


class Step:
    """One thing that is being made.

    ``update`` says how far it is; it may be called as often as there is news.
    """

    def __init__(self, update: Callable[[str], None]) -> None:
        self.update = update


class Progress:
    """Shows several steps at once; a context manager."""

    def __init__(self) -> None:
        self._live: LiveProgress | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._live = LiveProgress(
                SpinnerColumn(finished_text="✓"),
                TextColumn("[bold]{task.description}"),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def step(self, name: str, summary: str) -> Generator[Step]:
        """Show one step until the block ends; ``summary`` says what is made and how much of it."""
        if self._live is None:
            yield from _plain_step(name, summary)
            return
        live = self._live
        task = live.add_task(name, total=1, detail=escape(summary))
        yield Step(lambda detail: live.update(task, detail=escape(f"{summary}: {detail}")))
        live.update(task, completed=1, detail=escape(summary))


def _plain_step(name: str, summary: str) -> Generator[Step]:
    started = last = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{name}: {text}\n")
        sys.stderr.flush()

    def update(detail: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_SECONDS:
            last = now
            say(f"{detail} ({now - started:.0f} s)")

    say(summary)
    yield Step(update)
    say(f"ready after {time.monotonic() - started:.0f} s")
