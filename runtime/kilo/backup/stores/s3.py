"""Amazon S3: multipart uploads with SHA-256 a part, conditional writes, object lock.

Keys are created with ``If-None-Match: *``
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html), so the first version
of a key is the one that a backup wrote. Whoever stole credentials may put another version or a delete
marker on top of it, but the lock holds the first. So everything here looks at first versions, and
says what covers them.

The lock is the bucket's default retention, read back from the object. A part is kept whole for
the attempts that it may take: in memory while parts are small, later in a file. S3 allows 10,000 of them
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), so they grow as the object does: of
32 MiB for the first 67 GB, of 64 MiB up to 201 GB, and so on to 512 MiB, which makes 2.08 TB.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kilo.backup.stores.base import AlreadyExists, Lock, ObjectInfo, Readable, StoreError
from kilo.contract import BucketOutputs

PART_BYTES = 32 * 1024 * 1024
_MOST_PARTS = 10_000
_PARTS_OF_ONE_SIZE = 2_000
"""After so many parts the next are twice as large."""
_READ_BYTES = 1024 * 1024
_ATTEMPTS = 5
_READ_ATTEMPTS = 5
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"})
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})


class _Refused(StoreError):
    """S3 said no; ``code`` is its word for it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Version:
    """The first version of a key, and what was put on top of it since."""

    key: str
    id: str
    etag: str
    size: int
    created_at: datetime
    covered: str


class S3Store:
    """A bucket with object lock."""

    provider = "aws"

    def __init__(self, outputs: BucketOutputs) -> None:
        self.bucket = outputs.bucket
        self._retention = timedelta(days=outputs.retention_days)
        self._client: Any = boto3.client(
            "s3",
            region_name=outputs.location,
            config=Config(
                retries={"mode": "standard", "max_attempts": _ATTEMPTS},
                connect_timeout=10,
                read_timeout=60,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def create(self, key: str, stream: Readable) -> Lock:
        """See :class:`~kilo.backup.stores.base.Store`."""
        first = stream.read(PART_BYTES)
        if len(first) == PART_BYTES:
            return self._create_in_parts(key, first, stream)
        etag = hashlib.md5(first, usedforsecurity=False).hexdigest()
        answer = self._finish(key, etag, "put_object", Body=first, ChecksumAlgorithm="SHA256")
        return self._lock_of_new(key, answer, answer)

    def read(self, key: str) -> Iterator[bytes]:
        """See :class:`~kilo.backup.stores.base.Store`. Goes on where a connection broke off."""
        version = self._first(key)
        position, failures = 0, 0
        while position < version.size:
            try:
                answer = self._call(
                    "get_object", key, Key=key, VersionId=version.id, Range=f"bytes={position}-"
                )
                with closing(answer["Body"]) as body:
                    for piece in body.iter_chunks(_READ_BYTES):
                        position += len(piece)
                        failures = 0
                        yield piece
            except (BotoCoreError, OSError) as error:
                failures += 1
                if failures == _READ_ATTEMPTS:
                    msg = f"{self.describe()}/{key}: reading broke off: {type(error).__name__}"
                    raise StoreError(msg) from error
                time.sleep(0.1 * 2**failures)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :class:`~kilo.backup.stores.base.Store`."""
        return [
            ObjectInfo(version.key, version.size, version.created_at, version.covered)
            for version in self._versions(prefix)
            # Hidden after its lock ended: the bucket's lifecycle did that, and it is on its way out.
            if version.covered != _HIDDEN or version.created_at + self._retention > datetime.now(UTC)
        ]

    def lock(self, key: str) -> Lock:
        """See :class:`~kilo.backup.stores.base.Store`."""
        version = self._first(key)
        return self._lock(key, version.id, version.created_at)

    def configured_lock(self) -> tuple[str, int]:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            answer = self._call("get_object_lock_configuration", "")
        except _Refused as error:
            if error.code in _NO_LOCK:
                return "none", 0
            raise
        default = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days", 0) + 365 * default.get("Years", 0)
        return default.get("Mode", "none").lower(), days

    def delete(self, key: str) -> None:
        """See :class:`~kilo.backup.stores.base.Store`."""
        # The newest first: as long as one is locked, the first version stays what it is.
        for version in self._pages(key):
            if version["Key"] == key:
                self._call("delete_object", key, Key=key, VersionId=version["VersionId"])

    def describe(self) -> str:
        """See :class:`~kilo.backup.stores.base.Store`."""
        return f"s3://{self.bucket}"

    def _create_in_parts(self, key: str, first: bytes, stream: Readable) -> Lock:
        begun = self._call("create_multipart_upload", key, Key=key, ChecksumAlgorithm="SHA256")
        upload = begun["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            for number, part in enumerate(_parts(first, stream), start=1):
                self._require_room(key, number)
                answer = self._call(
                    "upload_part",
                    key,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=part,
                    ChecksumAlgorithm="SHA256",
                )
                parts.append(
                    {
                        "PartNumber": number,
                        "ETag": answer["ETag"],
                        "ChecksumSHA256": answer.get("ChecksumSHA256"),
                    }
                )
            answer = self._finish(
                key,
                _etag_of_parts(parts),
                "complete_multipart_upload",
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            self._abort(key, upload)
            raise
        # An upload in parts is as old as its beginning.
        return self._lock_of_new(key, answer, begun)

    def _require_room(self, key: str, number: int) -> None:
        if number > _MOST_PARTS:
            most = sum(_part_bytes(each) for each in range(1, number)) / 1e9
            msg = (
                f"{self.describe()}/{key}: larger than the {most:,.1f} GB that {_MOST_PARTS:,} parts hold,"
                " and S3 takes no more; back up what is too large for a dump physically"
            )
            raise StoreError(msg)

    def _finish(self, key: str, etag: str, action: str, **arguments: object) -> dict[str, Any] | None:
        """Make the object appear. Asked again after a lost answer, what is in the way is our own: None."""
        try:
            return self._call(action, key, Key=key, IfNoneMatch="*", **arguments)
        except _Refused as error:
            if error.code not in _EXISTS:
                raise
            if etag in {version.etag for version in self._versions(key) if version.key == key}:
                return None
            if error.code == "NoSuchUpload":
                raise
            msg = f"{self.describe()}/{key}: exists already, and backups are never overwritten"
            raise AlreadyExists(msg) from error

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload)
        except StoreError:
            # The bucket's lifecycle removes what is left of it.
            return

    def _lock_of_new(self, key: str, answer: dict[str, Any] | None, begun: dict[str, Any] | None) -> Lock:
        """The lock of the version that ``answer`` is about, created when ``begun`` was answered."""
        created_at = _date(begun)
        if not answer or "VersionId" not in answer or created_at is None:
            return self.lock(key)
        return self._lock(key, answer["VersionId"], created_at)

    def _lock(self, key: str, version_id: str, created_at: datetime) -> Lock:
        try:
            answer = self._call("get_object_retention", key, Key=key, VersionId=version_id)
        except _Refused as error:
            if error.code in _NO_LOCK:
                return Lock("none", None, created_at)
            raise
        retention = answer["Retention"]
        return Lock(retention["Mode"].lower(), retention["RetainUntilDate"], created_at)

    def _first(self, key: str) -> _Version:
        for version in self._versions(key):
            if version.key == key:
                return version
        raise KeyError(key)

    def _versions(self, prefix: str) -> list[_Version]:
        """The first version of every key that has one."""
        firsts: dict[str, dict[str, Any]] = {}
        covers: dict[str, str] = {}
        for entry in self._pages(prefix):
            key = entry["Key"]
            is_marker = "Size" not in entry
            if is_marker and key not in covers:
                covers[key] = _HIDDEN
            elif not is_marker:
                covers[key] = covers.get(key, "") or (_OVERWRITTEN if key in firsts else "")
                firsts[key] = entry
        return [
            _Version(
                key,
                entry["VersionId"],
                entry["ETag"].strip('"'),
                entry["Size"],
                entry["LastModified"],
                covers[key],
            )
            for key, entry in firsts.items()
        ]

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        """All versions and delete markers below ``prefix``, by key, the newest of a key first."""
        arguments: dict[str, str] = {"Prefix": prefix}
        while True:
            answer = self._call("list_object_versions", prefix, **arguments)
            entries = [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]
            # Times are whole seconds; within one, what S3 lists first came last. The latest is marked.
            entries.sort(key=lambda entry: entry["LastModified"], reverse=True)
            entries.sort(key=lambda entry: (entry["Key"], not entry.get("IsLatest")))
            yield from entries
            if not answer.get("IsTruncated"):
                return
            arguments["KeyMarker"] = answer["NextKeyMarker"]
            if marker := answer.get("NextVersionIdMarker"):
                arguments["VersionIdMarker"] = marker

    def _call(self, action: str, place: str, **arguments: object) -> dict[str, Any]:
        operation: Callable[..., dict[str, Any]] = getattr(self._client, action)
        where = f"{self.describe()}/{place}"
        try:
            return operation(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _ABSENT:
                raise KeyError(place) from error
            msg = f"{where}: {action} failed: {code}"
            raise _Refused(msg, code) from error
        except BotoCoreError as error:
            msg = f"{where}: {action} failed: {type(error).__name__}"
            raise StoreError(msg) from error


_HIDDEN = "hidden by a delete marker"
_OVERWRITTEN = "overwritten"


def _part_bytes(number: int) -> int:
    """The size of part ``number``, which counts from 1."""
    return PART_BYTES << (number - 1) // _PARTS_OF_ONE_SIZE


def _parts(first: bytes, stream: Readable) -> Iterator[bytes | IO[bytes]]:
    """The parts in turn, of which ``first`` has been read. One that is larger lies in a file."""
    yield first
    number = 2
    while _part_bytes(number) == PART_BYTES:
        piece = stream.read(PART_BYTES)
        if not piece:
            return
        yield piece
        number += 1
    while True:
        with tempfile.TemporaryFile() as part:
            if not _fill(part, stream, _part_bytes(number)):
                return
            yield part
        number += 1


def _fill(part: IO[bytes], stream: Readable, size: int) -> bool:
    """Write up to ``size`` bytes of ``stream`` to ``part``; whether there were any."""
    left = size
    while left and (piece := stream.read(min(left, PART_BYTES))):
        part.write(piece)
        left -= len(piece)
    part.seek(0)
    return left < size


def _etag_of_parts(parts: list[dict[str, Any]]) -> str:
    """The ETag of an object in parts: the MD5 of its parts' MD5s, and how many they are."""
    digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _date(answer: dict[str, Any] | None) -> datetime | None:
    """When S3 answered, by its own clock; in GMT always (RFC 9110, section 5.6.7)."""
    header = (answer or {}).get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(header).replace(tzinfo=UTC)
    except ValueError:
        return None
