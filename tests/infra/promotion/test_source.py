"""The stage that a promotion comes from: what its own commands say of it is handed on, or nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.promotion import source
from kilo.errors import BadInput, CheckFailed
from tests.events import make_outputs

RELEASE = "a" * 64
PINNED = f"sha256:{'b' * 64}"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the two commands answer; that they do, tests/runtime/gates shows."""
    answers: dict[str, dict[str, Any]] = {
        "check": {"verdict": "passed", "release": RELEASE, "checks": [], "emergency": None},
        "status": {
            "release": RELEASE,
            "program": "c0ffee",
            "digests": {"kilo:1": PINNED},
            "unpinned": ["nats:2"],
            "moved": [],
        },
    }
    monkeypatch.setattr(source, "_kilo", lambda _project, command, *_rest: answers[command])
    monkeypatch.setattr(source, "read_outputs", lambda _stage, _project: make_outputs(keys={}))
    return answers


def test_what_is_live_is_handed_on_with_its_digests(said: dict[str, dict[str, Any]]) -> None:
    found = source.ask("dev", "stage", Path())
    assert (found.release, found.program) == (RELEASE, "c0ffee")
    assert found.running == {"kilo:1": PINNED, "nats:2": None}
    said["check"]["verdict"] = "emergency"
    assert source.ask("dev", "stage", Path()).gate["verdict"] == "emergency"


def test_a_gate_that_says_no_is_said_check_by_check(said: dict[str, dict[str, Any]]) -> None:
    checks = [
        {"check": "program", "verdict": "passed", "shown": "0", "reason": ""},
        {"check": "soak", "verdict": "failed", "shown": "3 h", "reason": ""},
        {"check": "lost", "verdict": "failed", "shown": "-", "reason": "Prometheus has no sample"},
    ]
    said["check"] |= {"verdict": "failed", "checks": checks}
    with pytest.raises(
        CheckFailed,
        match=r"^dev is not promoted to stage: soak \(3 h\); lost \(Prometheus has no sample\)$",
    ):
        source.ask("dev", "stage", Path())


def test_a_tag_that_moved_is_not_handed_on_even_in_an_emergency(said: dict[str, dict[str, Any]]) -> None:
    said["check"]["verdict"] = "emergency"
    said["status"]["moved"] = ["kilo:1: its tag has another digest than when the release was first seen"]
    with pytest.raises(CheckFailed, match="its tag has another digest"):
        source.ask("dev", "stage", Path())


def test_a_release_that_changed_meanwhile_is_not_handed_on(said: dict[str, dict[str, Any]]) -> None:
    said["status"]["release"] = "d" * 64
    with pytest.raises(CheckFailed, match="the release changed while its gate was asked"):
        source.ask("dev", "stage", Path())


def test_the_database_of_the_other_stage_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KILO_FROM_DATABASE_URL", raising=False)
    with pytest.raises(BadInput, match="KILO_FROM_DATABASE_URL: not set"):
        source.ask("dev", "stage", Path())


def test_what_the_other_stages_command_says_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KILO_FROM_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/kilo")
    monkeypatch.setenv("KILO_OUTPUTS", "/nowhere")
    with pytest.raises(BadInput) as refused:
        source.ask("dev", "dev", tmp_path)
    assert "nobody" not in str(refused.value)
