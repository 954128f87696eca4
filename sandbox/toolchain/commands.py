"""Running the tools that build and download, with their output turned into progress."""

from __future__ import annotations

import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from kilo.errors import Unreachable
from sandbox.toolchain.progress import Step

_LINE_END = re.compile(rb"[\r\n]+")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_KEPT_LINES = 12


def run(
    argv: Sequence[str | Path],
    step: Step,
    *,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    describe: Callable[[str], str | None] = lambda line: None,
) -> None:
    """Run a command to its end; ``describe`` turns a line of its output into progress, or into None.

    Raises:
        Unreachable: the command can't be started or fails; its last lines are in the message.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen(
            [str(argument) for argument in argv],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        msg = f"{name} can't be started: {error.strerror}"
        raise Unreachable(msg) from error
    with process:
        assert process.stdout is not None  # noqa: S101 - stdout=PIPE
        for line in _lines(process.stdout):
            last.append(line)
            if (detail := describe(line)) is not None:
                step.update(detail)
    if process.returncode != 0:
        msg = f"{' '.join(str(argument) for argument in argv)} failed ({process.returncode}):\n" + "\n".join(
            last
        )
        raise Unreachable(msg)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines that end with a newline or, as progress bars do, with a carriage return."""
    rest = b""
    while chunk := stream.read1(65536):  # pyright: ignore[reportAttributeAccessIssue]
        *complete, rest = _LINE_END.split(rest + chunk)
        yield from filter(None, map(_text, complete))
    if text := _text(rest):
        yield text


def _text(raw: bytes) -> str:
    return _ESCAPE_SEQUENCE.sub("", raw.decode(errors="replace")).strip()
