"""Buckets and objects survive a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from sandbox.servers.fake_gcs import FakeGcsServer


def test_objects_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeGcsServer(tmp_path)
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        client = storage.Client(project="trial", credentials=AnonymousCredentials())
        bucket = client.create_bucket("vault")
        content = os.urandom(3_000_000)
        blob = bucket.blob("backups/2026 ü/dump")
        blob.metadata = {"sha256": "x"}
        blob.upload_from_string(content, content_type="application/octet-stream")
        server.kill()
        server.start()
        found = client.bucket("vault").get_blob("backups/2026 ü/dump")
        assert found is not None
        assert found.download_as_bytes() == content
        assert found.metadata == {"sha256": "x"}
        assert [one.name for one in client.list_blobs("vault")] == ["backups/2026 ü/dump"]
    finally:
        server.stop()
