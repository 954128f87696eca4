"""The files that a gateway writes its entries to: which there are, and what is in them.

A file is known by its first line, which has a time to the microsecond: renamed or copied it stays itself, and
what takes its name, or is written into it from the start again, is another. Envoy appends to one file; when
that is long enough it is given a number, and Envoy, asked over its admin socket, begins the next. From then
on the old one does not change, and it is deleted once it is read. Kill the collector anywhere in between, and
its next look goes on from what it finds.

Left out: several writers to one file, and files of before a pod, which die with it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 1024 * 1024
ROTATE_BYTES = 32 * 1024 * 1024
KEEP_BYTES = 5 * ROTATE_BYTES
"""What may wait while the database is away: a million requests. Then the oldest file goes."""
_HEAD_BYTES = 4_096
_ASK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file as it is now."""

    path: Path
    identity: str
    size: int
    finished: bool
    """Whether its writer has gone on to the next."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a file, between two of its bytes."""

    file: str
    begins: int
    ends: int
    text: bytes


class LogFiles:
    """A gateway's entries.

    Args:
        active: the file that the gateway appends to.
        admin: its admin interface's abstract socket, ``@`` before it; without one nothing is rotated.
    """

    def __init__(
        self,
        active: Path,
        admin: str | None = None,
        rotate_bytes: int = ROTATE_BYTES,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._active = active
        self._admin = admin
        self._rotate_bytes = rotate_bytes
        self._keep_bytes = keep_bytes

    def list(self) -> list[LogFile]:
        """All that have a line, the oldest first."""
        there = self._active.exists()
        paths = [*self._numbered(), *([self._active] if there else [])]
        found = [_look(path, finished=there and path != self._active) for path in paths]
        return [each for each in found if each is not None]

    def read(self, file: LogFile, begins: int) -> Chunk | None:
        """The next whole lines after ``begins``; none when there are none yet.

        The rest of a finished file belongs to its last line, which was torn, and a line longer than a chunk
        is cut: both are told as lines that can't be read.
        """
        try:
            with file.path.open("rb") as opened:
                if _identity(opened.fileno(), finished=file.finished) != file.identity:
                    return None
                text = os.pread(opened.fileno(), CHUNK_BYTES, begins)
                # Emptied and written again meanwhile, these bytes would be another file's.
                if _identity(opened.fileno(), finished=file.finished) != file.identity:
                    return None
        except FileNotFoundError:
            return None
        ends = text.rfind(b"\n") + 1
        if ends:
            return Chunk(file.identity, begins, begins + ends, text[:ends])
        if text and (len(text) == CHUNK_BYTES or file.finished):
            return Chunk(file.identity, begins, begins + len(text), text + b"\n")
        return None

    def rotate(self) -> None:
        """Have the gateway begin another file when this is long enough, or an earlier wish was not heard."""
        if self._admin is None:
            return
        numbered = self._numbered()
        try:
            if self._active.stat().st_size < self._rotate_bytes:
                return
            number = int(numbered[-1].suffix[1:]) + 1 if numbered else 1
            self._active.rename(self._active.with_name(f"{self._active.name}.{number}"))
        except FileNotFoundError:
            if not numbered:
                return  # Nothing was written yet.
        _ask_to_reopen(self._admin)

    def make_room(self) -> list[LogFile]:
        """Delete the oldest finished files while more waits than may: the disk is the gateway's too."""
        files = self.list()
        waiting = sum(each.size for each in files)
        gone: list[LogFile] = []
        for each in files:
            if waiting <= self._keep_bytes or not each.finished:
                break
            self.delete(each)
            waiting -= each.size
            gone.append(each)
        return gone

    def delete(self, file: LogFile) -> None:
        """Delete a file that is read."""
        file.path.unlink(missing_ok=True)

    def _numbered(self) -> list[Path]:
        found = [
            path for path in self._active.parent.glob(f"{self._active.name}.*") if path.suffix[1:].isdecimal()
        ]
        return sorted(found, key=lambda path: int(path.suffix[1:]))


def _look(path: Path, *, finished: bool) -> LogFile | None:
    try:
        with path.open("rb") as opened:
            identity = _identity(opened.fileno(), finished=finished)
            size = os.fstat(opened.fileno()).st_size
    except FileNotFoundError:
        return None
    return LogFile(path, identity, size, finished) if identity else None


def _identity(descriptor: int, *, finished: bool) -> str:
    """Of the first line, in hexadecimal; empty while that may go on."""
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    line, ended, _ = head.partition(b"\n")
    if not ended and len(head) < _HEAD_BYTES and not finished:
        return ""
    return hashlib.sha256(line).hexdigest()[:32]


class _AdminConnection(http.client.HTTPConnection):
    def __init__(self, name: str) -> None:
        super().__init__("admin", timeout=_ASK_SECONDS)
        self._name = name

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ASK_SECONDS)
        self.sock.connect("\0" + self._name.removeprefix("@"))


def _ask_to_reopen(admin: str) -> None:
    """https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/admin#post--reopen_logs."""
    connection = _AdminConnection(admin)
    try:
        connection.request("POST", "/reopen_logs")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        # A gateway that is not there opens the file by its name when it comes.
        _log.info("the gateway was not reached to begin another file: %s", error)
    finally:
        connection.close()
