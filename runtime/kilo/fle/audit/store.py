"""Where checkpoints are kept: the object-locked bucket of the stack's outputs, or a folder.

Objects are created once and never written again (``If-None-Match: *``, or a generation of zero), with
the bucket's retention on each. A folder holds the same names: an export for an auditor who is offline.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from kilo.contract import AUDIT_PREFIX, BucketOutputs
from kilo.errors import BadInput, Unreachable

PREFIX = AUDIT_PREFIX


class Store(Protocol):
    """Named texts that are written once."""

    def names(self) -> list[str]:
        """All names, sorted."""
        ...

    def read(self, name: str) -> str:
        """The text called ``name``."""
        ...

    def create(self, name: str, text: str) -> None:
        """Write ``name``; the same text again is fine, another text is :class:`AlreadyWritten`."""
        ...


class AlreadyWritten(BadInput):
    """The store holds another text under this name."""


class FolderStore:
    """A folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """See :class:`Store`."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def read(self, name: str) -> str:
        """See :class:`Store`."""
        # What is no UTF-8 was altered: it is read all the same, and found out by its hash.
        return (self.folder / name).read_bytes().decode(errors="replace")

    def create(self, name: str, text: str) -> None:
        """See :class:`Store`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with (self.folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if self.read(name) != text:
                msg = f"{self.folder / name}: holds another text already"
                raise AlreadyWritten(msg) from None


class S3Store:
    """An S3 bucket with object lock."""

    def __init__(self, bucket: BucketOutputs, client: Any = None) -> None:
        self.bucket = bucket
        self._client: Any = client or boto3.client("s3", region_name=bucket.location)

    def names(self) -> list[str]:
        """See :class:`Store`. A delete marker, which a lock does not prevent, hides nothing from us."""
        return sorted({each["Key"].removeprefix(PREFIX) for each in self._versions(PREFIX)})

    def read(self, name: str) -> str:
        """See :class:`Store`. The oldest version counts: a later one can only have been added on top."""
        key = PREFIX + name
        found = [each for each in self._versions(key) if each["Key"] == key]
        # Times are whole seconds; within one, S3 lists what was stored last first.
        first = min(reversed(found), key=lambda each: each["LastModified"])
        answer = self._ask(
            lambda: self._client.get_object(Bucket=self.bucket.bucket, Key=key, VersionId=first["VersionId"])
        )
        return answer["Body"].read().decode(errors="replace")

    def create(self, name: str, text: str) -> None:
        """See :class:`Store`."""
        body = text.encode()
        lock: dict[str, Any] = {}
        if self.bucket.lock_mode in {"governance", "compliance"}:
            until = datetime.now(UTC) + timedelta(days=self.bucket.retention_days)
            lock = {"ObjectLockMode": self.bucket.lock_mode.upper(), "ObjectLockRetainUntilDate": until}
        try:
            self._client.put_object(
                Bucket=self.bucket.bucket,
                Key=PREFIX + name,
                Body=body,
                ContentType="text/plain; charset=utf-8",
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                **lock,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise self._unreachable(error) from error
            if self.read(name) != text:
                msg = f"s3://{self.bucket.bucket}/{PREFIX}{name}: holds another text already"
                raise AlreadyWritten(msg) from None
        except BotoCoreError as error:
            raise self._unreachable(error) from error

    def _versions(self, prefix: str) -> list[dict[str, Any]]:
        pages = self._ask(
            lambda: list(
                self._client.get_paginator("list_object_versions").paginate(
                    Bucket=self.bucket.bucket, Prefix=prefix
                )
            )
        )
        return [each for page in pages for each in page.get("Versions", [])]

    def _ask(self, call: Any) -> Any:
        try:
            return call()
        except (ClientError, BotoCoreError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        return Unreachable(f"audit store s3://{self.bucket.bucket}: {code}")


class GcsStore:
    """A Cloud Storage bucket with a retention policy."""

    def __init__(self, bucket: BucketOutputs, client: Any = None) -> None:
        if client is None:
            from google.cloud import storage  # noqa: PLC0415 - an extra that only some stages install

            client = storage.Client()
        self._client: Any = client
        self._bucket: Any = client.bucket(bucket.bucket)

    def names(self) -> list[str]:
        """See :class:`Store`. Versions that are not current any more count."""
        return sorted({each.name.removeprefix(PREFIX) for each in self._versions(PREFIX)})

    def read(self, name: str) -> str:
        """See :class:`Store`. The oldest version counts, as in S3."""
        found = [each for each in self._versions(PREFIX + name) if each.name == PREFIX + name]
        first = min(found, key=lambda each: int(each.generation))
        return self._ask(first.download_as_bytes).decode(errors="replace")

    def create(self, name: str, text: str) -> None:
        """See :class:`Store`."""
        from google.api_core.exceptions import PreconditionFailed  # noqa: PLC0415 - see above

        def upload() -> bool:
            try:
                self._bucket.blob(PREFIX + name).upload_from_string(
                    text, content_type="text/plain; charset=utf-8", if_generation_match=0
                )
            except PreconditionFailed:
                return False
            return True

        if not self._ask(upload) and self.read(name) != text:
            msg = f"gs://{self._bucket.name}/{PREFIX}{name}: holds another text already"
            raise AlreadyWritten(msg)

    def _versions(self, prefix: str) -> list[Any]:
        return self._ask(lambda: list(self._client.list_blobs(self._bucket, prefix=prefix, versions=True)))

    def _ask(self, call: Any) -> Any:
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - see above
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - see above

        try:
            return call()
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            msg = f"audit store gs://{self._bucket.name}: {type(error).__name__}"
            raise Unreachable(msg) from error


def open_store(bucket: BucketOutputs) -> Store:
    """The store in ``bucket``."""
    return S3Store(bucket) if bucket.provider == "aws" else GcsStore(bucket)
