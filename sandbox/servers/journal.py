"""An append-only file of records that survives a kill at any byte.

A record is on disk before :meth:`Journal.flush` returns; threads that flush at once share one ``fsync``.
A record cut off by a kill was never acknowledged and is dropped at the next start; anything else that
is wrong is an error, since it means that something acknowledged is lost.

A record is a 4-byte length, a 4-byte CRC-32 (both little-endian) and the payload.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from kilo.errors import Unreachable

_HEADER = struct.Struct("<II")
_MAGIC = b"kilo-journal-1\n"


class Journal:
    """Records in the order in which they were appended.

    Args:
        path: the file; made, readable by its owner alone, when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._flushing = threading.Lock()
        self._written = os.fstat(self._file).st_size
        self._durable = 0
        if self._written < len(_MAGIC):
            os.ftruncate(self._file, 0)
            os.write(self._file, _MAGIC)
            self._written = len(_MAGIC)
            _sync_directory(path.parent)

    def replay(self) -> Iterator[bytes]:
        """Every record; to be exhausted before the first :meth:`append`.

        Raises:
            Unreachable: the file is damaged in a place that a kill can't have damaged.
        """
        with self._path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                msg = f"{self._path}: not a journal of this version; move it away to start empty"
                raise Unreachable(msg)
            good = file.tell()
            while header := file.read(_HEADER.size):
                payload = b""
                if len(header) == _HEADER.size:
                    length, checksum = _HEADER.unpack(header)
                    payload = file.read(length)
                    if len(payload) == length and zlib.crc32(payload) == checksum:
                        yield payload
                        good = file.tell()
                        continue
                if file.read(1):
                    msg = f"{self._path}: damaged at byte {good}; restore it, or move it away to start empty"
                    raise Unreachable(msg)
        os.ftruncate(self._file, good)
        os.fsync(self._file)
        self._written = self._durable = good

    def append(self, payload: bytes) -> int:
        """Write a record; callers take turns. Answers with the position to :meth:`flush` up to."""
        record = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        view = memoryview(record)
        while view:
            view = view[os.write(self._file, view) :]
        self._written += len(record)
        return self._written

    def flush(self, position: int) -> None:
        """Return when everything up to ``position`` is on disk."""
        with self._flushing:
            if self._durable < position:
                reached = self._written
                os.fdatasync(self._file)
                self._durable = reached

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
