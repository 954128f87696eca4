"""Amazon S3: multipart uploads with SHA-256 a part, conditional writes, object lock.

Keys are created with ``If-None-Match: *``
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). The lock is the
bucket's default retention; it is read back from the object, and set where the store gave it none.
Parts are 8 MiB, and 32 MiB from the 1,001st on, so that an object may have a quarter of a terabyte in
the 10,000 parts that S3 allows, with at most one part in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runtime.backup.stores.base import AlreadyExists, Lock, ObjectInfo, Readable, StoreError
from runtime.contract import BucketOutputs

PART_BYTES = 8 * 1024 * 1024
_LARGE_PART_BYTES = 32 * 1024 * 1024
_LARGE_FROM_PART = 1001
_READ_BYTES = 1024 * 1024
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})


class S3Store:
    """A bucket with object lock."""

    provider = "aws"

    def __init__(self, outputs: BucketOutputs) -> None:
        self.bucket = outputs.bucket
        self._outputs = outputs
        self._client = _client(outputs.location, attempts=5)
        self._asking_once = _client(outputs.location, attempts=1)
        self._has_get_retention = True

    def create(self, key: str, stream: Readable) -> Lock:
        """See :class:`~runtime.backup.stores.base.Store`."""
        first = stream.read(PART_BYTES)
        if len(first) < PART_BYTES:
            self._call("put_object", key, Key=key, Body=first, IfNoneMatch="*", ChecksumAlgorithm="SHA256")
        else:
            self._create_in_parts(key, first, stream)
        lock = self.lock(key)
        if lock.until is None:
            until = datetime.now(UTC) + timedelta(days=self._outputs.retention_days)
            retention = {"Mode": self._outputs.lock_mode.upper(), "RetainUntilDate": until}
            self._call("put_object_retention", key, Key=key, Retention=retention)
            lock = self.lock(key)
        return lock

    def read(self, key: str) -> Iterator[bytes]:
        """See :class:`~runtime.backup.stores.base.Store`."""
        answer = self._call("get_object", key, Key=key)
        try:
            yield from answer["Body"].iter_chunks(_READ_BYTES)
        except (BotoCoreError, OSError) as error:
            msg = f"{self.describe()}/{key}: reading broke off: {type(error).__name__}"
            raise StoreError(msg) from error

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :class:`~runtime.backup.stores.base.Store`."""
        found: list[ObjectInfo] = []
        arguments: dict[str, str] = {"Prefix": prefix}
        while True:
            answer = self._call("list_objects_v2", prefix, **arguments)
            for entry in answer.get("Contents", ()):
                found.append(ObjectInfo(entry["Key"], entry["Size"], entry["LastModified"]))  # noqa: PERF401
            if not answer.get("IsTruncated"):
                return found
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    def lock(self, key: str) -> Lock:
        """See :class:`~runtime.backup.stores.base.Store`."""
        if self._has_get_retention:
            try:
                answer = self._asking_once.get_object_retention(Bucket=self.bucket, Key=key)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code in _ABSENT:
                    raise KeyError(key) from error
                if code in _NO_LOCK:
                    return Lock("none", None)
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status < 500:
                    msg = f"{self.describe()}/{key}: get_object_retention failed: {code}"
                    raise StoreError(msg) from error
                self._has_get_retention = False
            except BotoCoreError:
                self._has_get_retention = False
            else:
                retention = answer["Retention"]
                return Lock(retention["Mode"].lower(), retention["RetainUntilDate"])
        # Not every S3-compatible store has GetObjectRetention. HEAD says the same to who may read.
        head = self._call("head_object", key, Key=key)
        return Lock(head.get("ObjectLockMode", "none").lower(), head.get("ObjectLockRetainUntilDate"))

    def configured_lock(self) -> tuple[str, int]:
        """See :class:`~runtime.backup.stores.base.Store`."""
        answer = self._call("get_object_lock_configuration", "")
        default = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days", 0) + 365 * default.get("Years", 0)
        return default.get("Mode", "none").lower(), days

    def delete(self, key: str) -> None:
        """See :class:`~runtime.backup.stores.base.Store`."""
        answer = self._call("list_object_versions", key, Prefix=key)
        versions = [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]
        for version in versions:
            if version["Key"] == key:
                self._call("delete_object", key, Key=key, VersionId=version["VersionId"])

    def describe(self) -> str:
        """See :class:`~runtime.backup.stores.base.Store`."""
        return f"s3://{self.bucket}"

    def _create_in_parts(self, key: str, first: bytes, stream: Readable) -> None:
        upload = self._call("create_multipart_upload", key, Key=key, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            parts: list[dict[str, object]] = []
            piece = first
            while piece:
                number = len(parts) + 1
                answer = self._call(
                    "upload_part",
                    key,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=piece,
                    ChecksumAlgorithm="SHA256",
                )
                parts.append(
                    {
                        "PartNumber": number,
                        "ETag": answer["ETag"],
                        "ChecksumSHA256": answer.get("ChecksumSHA256"),
                    }
                )
                piece = stream.read(PART_BYTES if number + 1 < _LARGE_FROM_PART else _LARGE_PART_BYTES)
            self._call(
                "complete_multipart_upload",
                key,
                Key=key,
                UploadId=upload,
                IfNoneMatch="*",
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            self._abort(key, upload)
            raise

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload)
        except StoreError:
            # The bucket's lifecycle removes what is left of it.
            return

    def _call(self, action: str, place: str, **arguments: object) -> dict[str, Any]:
        operation: Callable[..., dict[str, Any]] = getattr(self._client, action)
        where = f"{self.describe()}/{place}"
        try:
            return operation(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _EXISTS:
                msg = f"{where}: exists already, and backups are never overwritten"
                raise AlreadyExists(msg) from error
            if code in _ABSENT:
                raise KeyError(place) from error
            msg = f"{where}: {action} failed: {code}"
            raise StoreError(msg) from error
        except BotoCoreError as error:
            msg = f"{where}: {action} failed: {type(error).__name__}"
            raise StoreError(msg) from error


def _client(region: str, *, attempts: int) -> Any:
    return boto3.client(
        "s3",
        region_name=region,
        config=Config(
            retries={"mode": "standard", "max_attempts": attempts},
            connect_timeout=10,
            read_timeout=60,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
