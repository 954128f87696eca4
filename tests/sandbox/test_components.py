"""Finding a component's log by what ``kilo status`` calls it, and knowing what is not worth waiting for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.cli import logs
from sandbox.components import ComponentStatus, log_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for pod in ("kilo/ingest-1", "kilo/ingest-2", "monitoring/prometheus-0"):
        folder = tmp_path / ".kilo" / "logs" / "pods" / pod
        folder.mkdir(parents=True)
        (folder / f"{pod.rpartition('/')[2].partition('-')[0]}.0.log").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ingest", ["ingest-1/ingest.0", "ingest-2/ingest.0"]),
        ("ingest-1", ["ingest-1/ingest.0"]),
        ("kilo/ingest-2", ["ingest-2/ingest.0"]),
        ("monitoring/prometheus-0", ["prometheus-0/prometheus.0"]),
        ("kilo/nothing", []),
    ],
)
def test_a_pods_log_is_found_with_and_without_its_namespace(
    project: Path, name: str, found: list[str]
) -> None:
    assert sorted(log_files(project, name)) == found


@pytest.mark.parametrize(
    ("state", "settled"), [("ready", True), ("completed", True), ("failed", True), ("starting", False)]
)
def test_a_failed_jobs_pod_is_not_waited_for(state: str, settled: bool) -> None:
    assert ComponentStatus("kilo/one", state, None, 0, "").settled is settled


def test_an_empty_log_is_said_to_be_empty(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sandbox.cli.find_project", lambda: project)
    logs("prometheus")
    assert capsys.readouterr() == ("", "empty so far\n")
    next(project.rglob("prometheus.0.log")).write_text("one\ntwo\n")
    logs("prometheus", lines=1)
    assert capsys.readouterr() == ("two\n", "")
