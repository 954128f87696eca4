from __future__ import annotations

from pathlib import Path

from sandbox.previews import NOTE, is_over


def note(project: Path, name: str, text: str) -> None:
    folder = project / ".kilo" / "previews" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).write_text(text)


def test_a_preview_is_over_when_its_time_is(tmp_path: Path) -> None:
    assert not is_over(tmp_path, 100.0)
    note(tmp_path, "pr-1-orders", "100.5")
    assert not is_over(tmp_path, 100.0)
    assert is_over(tmp_path, 100.5)


def test_a_note_that_a_kill_cut_off_hides_no_other(tmp_path: Path) -> None:
    note(tmp_path, "pr-1-orders", "")
    note(tmp_path, "pr-2-orders", "50")
    assert is_over(tmp_path, 60.0)
