"""What ``kilo doctor`` says of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.doctor import examine


def test_what_is_made_already_needs_nothing() -> None:
    assert [finding.detail for finding in examine() if not finding.ok] == []


def test_what_the_first_up_could_not_make_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.what: finding for finding in examine()}
    assert "apt-get install maven" in found["debezium-server"].detail
    assert not found["debezium-server"].ok
    assert found["pulumi"].ok
    assert "from its Go module" in found["pulumi"].detail
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    assert "disk space" in {finding.what for finding in examine() if not finding.ok}
