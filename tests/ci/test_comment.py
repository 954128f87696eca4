"""The comment of a pull request, put together of what each stage's preview said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / ".ci" / "comment"
MARKER = "<!-- kilo preview-diff -->"


def joined(*files: Path) -> str:
    # With no library at all: the job that writes the comment installs none.
    command = [sys.executable, "-I", "-S", str(SCRIPT), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout


def stage(folder: Path, name: str, changes: str) -> Path:
    file = folder / f"{name}.md"
    summary = f"<details><summary>All changes in {name}</summary>"
    file.write_text(f"{MARKER}\n### {name}\n\n{summary}\n\n```diff\n{changes}\n```\n\n</details>\n")
    return file


def test_what_must_be_read_comes_before_all_changes(tmp_path: Path) -> None:
    said = joined(stage(tmp_path, "dev", "+ a"), stage(tmp_path, "prod", "+ b"))
    assert said.startswith(f"{MARKER}\n### dev")
    assert said.count(MARKER) == 1
    places = [
        said.index(text) for text in ("### dev", "### prod", "All changes in dev", "All changes in prod")
    ]
    assert places == sorted(places)


def test_a_comment_that_is_too_long_is_cut_where_nothing_stays_open(tmp_path: Path) -> None:
    long = "\n".join(f"+ line {number} of größtem Umfang: ✓✓✓✓" for number in range(9000))
    said = joined(stage(tmp_path, "dev", "+ a"), stage(tmp_path, "prod", long))
    assert 55_000 < len(said.encode()) <= 60_001
    assert said.rstrip().endswith("… cut here: the whole diff is in the job's artifact.")
    assert len(re.findall("^```", said, re.MULTILINE)) % 2 == 0
    assert said.count("<details>") == said.count("</details>") == 2
    # What was joined and cut once, and comes from elsewhere, stays as it is.
    file = tmp_path / "comment.md"
    file.write_text(said)
    assert joined(file).rstrip() == said.rstrip()


def test_a_comment_that_is_not_one_is_still_bounded(tmp_path: Path) -> None:
    file = tmp_path / "comment.md"
    file.write_text(f"{'<details>' * 9000}\n" + "```\n" * 20_000 + f"{MARKER} {MARKER}\n")
    said = joined(file)
    assert len(said.encode()) <= 60_001
    assert said.count(MARKER) == 1
