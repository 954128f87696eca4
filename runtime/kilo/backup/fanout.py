"""One stream to several stores at the same time, with back-pressure.

The slowest store that still works sets the pace: each has a queue of a few pieces, so memory is
bounded whatever the size. A store that fails is left behind and the others go on; when the source
breaks, every store's stream breaks, so that none keeps half an object.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from kilo.errors import KiloError, Unreachable

QUEUED_PIECES = 8
_CHECK_SECONDS = 0.2

Result = TypeVar("Result")


class SourceBroken(Unreachable):
    """The stream to a store ended early because its source did."""


class Pipe:
    """The reading end of one store: :class:`~kilo.backup.stores.base.Readable`."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | SourceBroken | None] = queue.Queue(QUEUED_PIECES)
        self._rest = memoryview(b"")
        self._position = 0
        self._ended = False
        self.closed = threading.Event()
        """Set once the reader is gone."""

    def read(self, size: int = -1, /) -> bytes:
        """Read ``size`` bytes, fewer only at the end.

        Raises:
            SourceBroken: the source did not come to its end.
        """
        taken, length = [self._rest], len(self._rest)
        while not self._ended and (size < 0 or length < size):
            piece = self._queue.get()
            if isinstance(piece, SourceBroken):
                raise piece
            if piece is None:
                self._ended = True
            else:
                taken.append(memoryview(piece))
                length += len(piece)
        surplus = max(0, length - size) if size >= 0 else 0
        last = taken.pop()
        taken.append(last[: len(last) - surplus])
        self._rest = last[len(last) - surplus :]
        self._position += length - surplus
        return b"".join(taken)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def put(self, piece: bytes | SourceBroken | None) -> None:
        """Hand a piece to the reader, waiting while its queue is full; None is the end."""
        while not self.closed.is_set():
            try:
                self._queue.put(piece, timeout=_CHECK_SECONDS)
            except queue.Full:
                continue
            return


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What a store made of the stream: a result or an error."""

    result: Result | None
    error: KiloError | None


def fan_out(
    pieces: Iterable[bytes], consumers: Mapping[str, Callable[[Pipe], Result]]
) -> dict[str, Outcome[Result]]:
    """Feed ``pieces`` to every consumer and return what became of each.

    Raises:
        whatever ``pieces`` raises, once every consumer has given up.
        KiloError: the last failure, as soon as no consumer is left.
    """
    pipes = {name: Pipe() for name in consumers}
    outcomes: dict[str, Outcome[Result]] = {}

    def consume(name: str) -> None:
        try:
            outcomes[name] = Outcome(consumers[name](pipes[name]), None)
        except KiloError as error:
            outcomes[name] = Outcome(None, error)
        except Exception as error:
            outcomes[name] = Outcome(None, Unreachable(f"{name}: {type(error).__name__}: {error}"))
        finally:
            pipes[name].closed.set()

    threads = [threading.Thread(target=consume, args=(name,), name=f"store-{name}") for name in consumers]
    for thread in threads:
        thread.start()
    try:
        for piece in pieces:
            for pipe in pipes.values():
                pipe.put(piece)
            if all(pipe.closed.is_set() for pipe in pipes.values()):
                break
    except BaseException as error:
        for pipe in pipes.values():
            pipe.put(SourceBroken(f"the stream broke off: {error}"))
        raise
    else:
        for pipe in pipes.values():
            pipe.put(None)
    finally:
        for thread in threads:
            thread.join()
    errors = [outcome.error for outcome in outcomes.values() if outcome.error is not None]
    if len(errors) == len(consumers):
        raise errors[-1]
    return outcomes
