"""Copying one blob: streamed, verified as it passes, resumed where either side breaks off.

Small blobs go in one PUT, larger ones in chunks (PATCH). A source that breaks off is read on with a
Range request, unseen by the destination. A destination that breaks off is asked how far it got and
gets the rest; one that does not say (Distribution once a chunk was torn, go-containerregistry
always) gets the blob again, since nobody knows what it kept. The digest is computed over every byte
on the way in; an upload whose bytes are not what was asked for is cancelled, never committed.

Artifact Registry takes no chunks (https://cloud.google.com/artifact-registry/docs/docker/pushing-and-pulling),
so a blob goes there in one PATCH and starts over when it breaks.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from kilo.errors import KiloError
from kilo.registry.client import Repository, refusal, require
from kilo.registry.errors import NotFound, RegistryDown, Rejected, Unreadable, Untrustworthy
from kilo.registry.headers import content_length, retry_after_seconds
from kilo.registry.manifest import Descriptor
from kilo.registry.transport import LONGEST_PAUSE_SECONDS, Answer, back_off_seconds

SIZE_LIMIT_BYTES = 2**40
"""No registry takes a larger blob (ECR: 52 GB), and a source that claims one could send for ever."""

CHUNK_BYTES = 64 * 1024 * 1024
SLOWEST_BYTES_PER_SECOND = 128 * 1024
"""A blob that comes or goes more slowly than this, beyond a request's patience, is given up."""

_READ_BYTES = 1024 * 1024
_PIECE_BYTES = 256 * 1024
_ATTEMPTS = 3
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class BlobReader:
    """A blob of the source, read from any offset, its digest computed over each byte once.

    A source that breaks off is asked for the rest, as long as each time brings a mebibyte or the
    last of three tries does; and in all no longer than the blob's size allows.

    Raises, while read:
        Untrustworthy: more or other bytes than the descriptor says.
        NotFound: the source does not hold the blob.
        RegistryDown: the connection broke time and again, or the bytes trickle.
    """

    def __init__(self, repository: Repository, descriptor: Descriptor) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._hashed = 0
        self._position = 0
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._place = f"{repository.name}@{descriptor.digest}"
        self._deadline = time.monotonic() + longest_seconds(repository, descriptor)
        self._failures = 0
        self._progress_from = 0

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield the bytes from ``offset``, ``length`` of them."""
        end = offset + length
        if self._answer is None or offset != self._position:
            self.close()
            self._position = offset
        while self._position < end:
            try:
                if self._answer is None:
                    self._open(self._position)
                piece = self._next(end - self._position)
            except HTTPError as error:
                self._note_failure(error)
                continue
            if not piece:
                self.close()
                msg = f"{self._place}: ends after {self._position} of {self._descriptor.size} bytes"
                raise Untrustworthy(msg)
            self._count(piece)
            yield piece

    def _next(self, wanted: int) -> bytes:
        if time.monotonic() > self._deadline:
            msg = f"{self._place}: only {self._position} of {self._descriptor.size} bytes came in time"
            raise RegistryDown(msg)
        assert self._answer is not None  # noqa: S101 - opened by the caller
        return self._answer.read1(min(_PIECE_BYTES, wanted))

    def _note_failure(self, error: HTTPError) -> None:
        """Give up after three failures without a mebibyte between them, or else wait a moment."""
        self.close()
        if self._position - self._progress_from >= _READ_BYTES:
            self._failures, self._progress_from = 0, self._position
        self._failures += 1
        if self._failures >= _ATTEMPTS:
            msg = f"{self._place}: {type(error).__name__} at byte {self._position}, {self._failures} times"
            raise RegistryDown(msg) from error
        time.sleep(back_off_seconds(self._failures))

    def _count(self, piece: bytes) -> None:
        fresh = self._position + len(piece) - self._hashed
        if fresh > 0:
            self._hash.update(piece[len(piece) - fresh :] if fresh < len(piece) else piece)
            self._hashed += fresh
        self._position += len(piece)

    def check(self) -> None:
        """Check the digest and that nothing follows, once every byte has been read."""
        name, _, expected = self._descriptor.digest.partition(":")
        if self._hash.hexdigest() != expected:
            msg = f"{self._place}: its {self._hashed} bytes have the digest {name}:{self._hash.hexdigest()}"
            raise Untrustworthy(msg)

    def close(self) -> None:
        """Give up the connection to the source."""
        if self._answer is not None:
            if self._answer.length_remaining != 0:
                # What is left unread would be taken for the next answer's head.
                self._answer.close()
            self._answer.release_conn()
            self._answer = None

    def _open(self, offset: int) -> None:
        answer = self._repository.transport.open(
            f"/v2/{self._repository.path}/blobs/{self._descriptor.digest}",
            self._repository.pull,
            # go-containerregistry answers 416 to a range without an end.
            headers={"Range": f"bytes={offset}-{self._descriptor.size - 1}"} if offset else {},
        )
        if isinstance(answer, Answer):
            raise refusal(answer, self._place)
        self._answer = answer
        expected = self._descriptor.size - (offset if answer.status == 206 else 0)
        try:
            declared = content_length(answer.headers.get("Content-Length"), self._place)
        except Unreadable:
            answer.close()
            self._answer = None
            raise
        if declared is not None and declared != expected:
            answer.close()
            self._answer = None
            msg = f"{self._place}: {declared} bytes offered where {expected} are due"
            raise Untrustworthy(msg)
        if offset and answer.status == 200:
            self._skip(offset)

    def _skip(self, length: int) -> None:
        """Read past what was read before: the source took no notice of the Range."""
        while length:
            piece = self._next(length)
            if not piece:
                self.close()
                msg = f"{self._place}: ends before byte {self._position} where it once went on"
                raise Untrustworthy(msg)
            length -= len(piece)


def longest_seconds(repository: Repository, descriptor: Descriptor) -> float:
    """How long the blob may take one way, given a request's patience and the slowest speed."""
    return repository.transport.patience_seconds + descriptor.size / SLOWEST_BYTES_PER_SECOND


class BlobWriter:
    """An upload of one blob to the destination."""

    def __init__(self, repository: Repository, descriptor: Descriptor, chunk_bytes: int) -> None:
        self._repository = repository
        self._transport = repository.transport
        self._descriptor = descriptor
        self._deadline = time.monotonic() + longest_seconds(repository, descriptor)
        single = repository.name.partition("/")[0].endswith("-docker.pkg.dev")
        self._chunk_bytes = max(descriptor.size, 1) if single else chunk_bytes
        self._place = f"{repository.name}@{descriptor.digest}"

    def mount(self, from_path: str | None) -> str | None:
        """Start the upload, mounting the blob from a repository of the same registry if it can be.

        Returns:
            The upload's location; None when the blob was mounted and nothing is left to do.
        """
        query = f"?mount={self._descriptor.digest}&from={from_path}" if from_path else ""
        answer = self._transport.request(
            "POST", f"/v2/{self._repository.path}/blobs/uploads/{query}", self._repository.push, body=b""
        )
        require(answer, {201, 202}, self._place)
        if answer.status == 201:
            return None
        location = answer.headers.get("Location")
        if not location:
            msg = f"{self._place}: the upload was begun, but its Location is not said"
            raise Rejected(msg)
        return self._transport.url(location)

    def send(self, location: str, reader: BlobReader) -> None:
        """Send the whole blob to the upload at ``location`` and commit it."""
        size = self._descriptor.size
        self._deadline = time.monotonic() + longest_seconds(self._repository, self._descriptor)
        try:
            if size <= _READ_BYTES:
                content = b"".join(reader.read(0, size))
                reader.check()
                self.put(location, content)
                return
            offset = 0
            while offset < size:
                location, offset = self._send_chunk(location, offset, reader)
            reader.check()
            self.put(location, b"")
        except (Untrustworthy, Unreadable, NotFound):
            self._cancel(location)
            raise

    def _send_chunk(self, location: str, offset: int, reader: BlobReader) -> tuple[str, int]:
        deadline = min(self._deadline, time.monotonic() + self._transport.patience_seconds)
        for attempt in itertools.count():
            length = min(self._chunk_bytes, self._descriptor.size - offset)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(length),
                "Content-Range": f"{offset}-{offset + length - 1}",
            }
            delay = back_off_seconds(attempt)
            try:
                answer = self._transport.send(
                    "PATCH",
                    location,
                    self._repository.push,
                    headers=headers,
                    body=reader.read(offset, length),
                )
            except HTTPError as error:
                trouble = type(error).__name__
            else:
                if answer.status == 202:
                    return self._transport.url(answer.headers.get("Location", location)), offset + length
                trouble = f"HTTP {answer.status}"
                asked = retry_after_seconds(answer.headers.get("Retry-After")) or 0.0
                delay = max(delay, min(asked, LONGEST_PAUSE_SECONDS))
                if answer.status in {404, 410}:
                    msg = f"{self._place}: the upload is gone (HTTP {answer.status})"
                    raise UploadLost(msg)
                if answer.status not in {401, 416, 429, 500, 502, 503, 504}:
                    require(answer, {202}, self._place)
            reader.close()
            if time.monotonic() + delay >= deadline:
                msg = f"{self._place}: {trouble} at byte {offset}, for {attempt + 1} attempts"
                raise RegistryDown(msg)
            time.sleep(delay)
            location, offset = self._progress(location, offset + length)
        raise AssertionError

    def _progress(self, location: str, sent: int) -> tuple[str, int]:
        """Ask how far the upload got. Without an answer nobody knows what was kept of the broken chunk."""
        answer = self._transport.request("GET", location, self._repository.push)
        if answer.status != 204:
            msg = f"{self._place}: the upload can't be resumed"
            raise UploadLost(msg)
        kept = _RANGE.fullmatch(answer.headers.get("Range", ""))
        location = self._transport.url(answer.headers.get("Location", location))
        # "0-0" stands for an empty upload as well as for one byte; starting over at 0 is right for both.
        reached = int(kept[1]) + 1 if kept and int(kept[1]) > 0 else 0
        if reached > sent:
            msg = f"{self._place}: the upload is said to hold {reached} bytes, of {sent} that were sent"
            raise UploadLost(msg)
        return location, reached

    def put(self, location: str, content: bytes) -> None:
        """Send the rest of the blob, all of it where nothing was sent before, and commit the upload."""
        separator = "&" if urlsplit(location).query else "?"
        answer = self._transport.request(
            "PUT",
            f"{location}{separator}digest={self._descriptor.digest}",
            self._repository.push,
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(content))},
            body=content,
        )
        if answer.status in {400, 404, 410, 416}:
            # The bytes sent had the right digest, so what the destination holds of them is not whole.
            msg = f"{self._place}: the upload was not kept (HTTP {answer.status})"
            raise UploadLost(msg)
        require(answer, {201}, self._place)

    def _cancel(self, location: str) -> None:
        try:
            self._transport.send("DELETE", location, self._repository.push)
        except (HTTPError, KiloError):
            return


class UploadLost(Rejected):
    """The destination forgot an upload under way; it starts over."""


def copy_blob(
    source: Repository,
    destination: Repository,
    descriptor: Descriptor,
    *,
    mount_from: str | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> int:
    """Copy one blob that the destination does not hold.

    Returns:
        The bytes that were sent; 0 when the blob was mounted.

    Raises:
        Unreadable: the descriptor says that it is larger than any blob.
        Untrustworthy: the source sent other bytes than the descriptor says, three times.
        NotFound: the source does not hold the blob.
        RegistryDown, AccessDenied, Rejected: a side can't be used.
    """
    if descriptor.size > SIZE_LIMIT_BYTES:
        msg = f"{source.name}@{descriptor.digest}: said to have {descriptor.size} bytes; no blob has so many"
        raise Unreadable(msg)
    writer = BlobWriter(destination, descriptor, chunk_bytes)
    for attempt in range(_ATTEMPTS):
        location = writer.mount(mount_from if attempt == 0 else None)
        if location is None:
            return 0
        reader = BlobReader(source, descriptor)
        try:
            writer.send(location, reader)
        except (Untrustworthy, UploadLost):
            if attempt == _ATTEMPTS - 1:
                raise
        except HTTPError as error:
            if attempt == _ATTEMPTS - 1:
                msg = f"{source.name}@{descriptor.digest}: {type(error).__name__}, for {_ATTEMPTS} attempts"
                raise RegistryDown(msg) from error
        else:
            return descriptor.size
        finally:
            reader.close()
        time.sleep(back_off_seconds(attempt))
    raise AssertionError


def has_blob(repository: Repository, digest: str, size: int | None = None) -> bool:
    """Whether the repository holds the blob, by ``size`` of so many bytes.

    What another manifest has brought there is no proof of what this one says of its size.

    Raises:
        Untrustworthy: it holds the blob, and says that it has another size.
    """
    answer = repository.transport.request("HEAD", f"/v2/{repository.path}/blobs/{digest}", repository.pull)
    if answer.status == 404:
        return False
    place = f"{repository.name}@{digest}"
    require(answer, {200, 307}, place)
    declared = content_length(answer.headers.get("Content-Length"), place) if answer.status == 200 else None
    if size is not None and declared is not None and declared != size:
        msg = f"{place}: has {declared} bytes where {size} are due"
        raise Untrustworthy(msg)
    return True
