"""Google Cloud Storage: resumable uploads, generation preconditions, the bucket's retention policy.

Keys are created with ``ifGenerationMatch=0``
(https://cloud.google.com/storage/docs/request-preconditions). The lock is the bucket's retention
policy; an object's own expiry is read back from the answer to its upload, which is why the writer
needs no right to read. ``STORAGE_EMULATOR_HOST`` is honoured, as Google's own library does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import google.auth
import requests
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from kilo.backup.stores.base import AlreadyExists, Lock, ObjectInfo, Readable, StoreError
from kilo.contract import BucketOutputs

CHUNK_BYTES = 32 * 1024 * 1024
"""Each chunk waits for an answer."""
_READ_BYTES = 1024 * 1024
_TIMEOUT_SECONDS = 60
_FAILURES = (DataCorruption, InvalidResponse, GoogleAPIError, GoogleAuthError, requests.RequestException)


class GcsStore:
    """A bucket with a retention policy."""

    provider = "gcp"

    def __init__(self, outputs: BucketOutputs) -> None:
        self.bucket = outputs.bucket
        self._client_made: Any = None

    def create(self, key: str, stream: Readable) -> Lock:
        """See :class:`~kilo.backup.stores.base.Store`."""
        blob = self._bucket.blob(key, chunk_size=CHUNK_BYTES)
        try:
            blob.upload_from_file(stream, if_generation_match=0, checksum="crc32c", timeout=_TIMEOUT_SECONDS)
        except PreconditionFailed as error:
            msg = f"{self.describe()}/{key}: exists already, and backups are never overwritten"
            raise AlreadyExists(msg) from error
        except _FAILURES as error:
            raise self._failure(error, "upload", key) from error
        return self._lock_of(blob)

    def read(self, key: str) -> Iterator[bytes]:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            with self._bucket.blob(key).open("rb", chunk_size=CHUNK_BYTES) as file:
                while piece := file.read(_READ_BYTES):
                    yield cast("bytes", piece)
        except NotFound as error:
            raise KeyError(key) from error
        except _FAILURES as error:
            raise self._failure(error, "read", key) from error

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            blobs = list(self._client.list_blobs(self.bucket, prefix=prefix, timeout=_TIMEOUT_SECONDS))
        except _FAILURES as error:
            raise self._failure(error, "list", prefix) from error
        return [ObjectInfo(blob.name, blob.size, blob.time_created) for blob in blobs]

    def lock(self, key: str) -> Lock:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            blob = self._bucket.get_blob(key, timeout=_TIMEOUT_SECONDS)
        except _FAILURES as error:
            raise self._failure(error, "get metadata", key) from error
        if blob is None:
            raise KeyError(key)
        return self._lock_of(blob)

    def configured_lock(self) -> tuple[str, int]:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            bucket = self._client.get_bucket(self.bucket, timeout=_TIMEOUT_SECONDS)
        except _FAILURES as error:
            raise self._failure(error, "looking at the bucket") from error
        days = int(bucket.retention_period or 0) // 86_400
        if not days:
            # An emulator keeps no retention policy, so there its absence says nothing.
            return ("unknown" if _emulated() else "none"), 0
        return ("locked" if bucket.retention_policy_locked else "unlocked"), days

    def delete(self, key: str) -> None:
        """See :class:`~kilo.backup.stores.base.Store`."""
        try:
            self._bucket.blob(key).delete(timeout=_TIMEOUT_SECONDS)
        except NotFound:
            return
        except _FAILURES as error:
            raise self._failure(error, "delete", key) from error

    def describe(self) -> str:
        """See :class:`~kilo.backup.stores.base.Store`."""
        return f"gs://{self.bucket}"

    @property
    def _client(self) -> Any:
        if self._client_made is None:
            try:
                identity, project = (
                    (AnonymousCredentials(), "emulated") if _emulated() else google.auth.default()
                )
            except GoogleAuthError as error:
                raise self._failure(error, "sign in") from error
            self._client_made = storage.Client(project=project, credentials=identity)
        return self._client_made

    @property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket)

    def _lock_of(self, blob: Any) -> Lock:
        until = blob.retention_expiration_time
        return Lock("retention" if until else "none", until, blob.time_created)

    def _failure(self, error: Exception, action: str, key: str = "") -> StoreError:
        code = getattr(error, "code", None)
        msg = (
            f"{self.describe()}/{key}: {action} failed: {type(error).__name__}{f' ({code})' if code else ''}"
        )
        return StoreError(msg)


def _emulated() -> bool:
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))
