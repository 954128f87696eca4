"""``make goldens``: writes the goldens anew. Look at what changed before it is committed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sandbox.preview_diff import changes_of
from sandbox.rehearsal import Rehearsal
from tests.goldens.rendering import COMMENTS, PREVIEWS, comment, inventory
from tests.goldens.scenarios import DATABASE_URL, SCENARIOS, STAGE, copy_program


def main() -> None:
    """Write every golden, and remove those of scenarios that are no more."""
    for folder in (COMMENTS, PREVIEWS):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, Rehearsal(DATABASE_URL) as rehearsal:
        base = copy_program(Path(place, "base"))
        for stage in ("dev", "stage", "prod"):
            _write(PREVIEWS / f"{stage}.txt", inventory(rehearsal.preview(base, stage).events))
        rehearsal.carry_out(base, STAGE)
        for name, edit in SCENARIOS.items():
            head = copy_program(Path(place, name), edit)
            _write(COMMENTS / f"{name}.md", comment(changes_of(rehearsal, head, STAGE)))
    for file in COMMENTS.glob("*.md"):
        if file.stem not in SCENARIOS:
            file.unlink()


def _write(file: Path, text: str) -> None:
    same = file.exists() and file.read_text(encoding="utf-8") == text
    file.write_text(text, encoding="utf-8")
    print(f"{'same' if same else 'written'}  {file.relative_to(Path.cwd())}", flush=True)


if __name__ == "__main__":
    main()
