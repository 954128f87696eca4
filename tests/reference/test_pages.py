"""What stands in the how-to pages is run: each `sh` block of a page, in its order, in a copy of the checkout.

A `text` block behind it is what it prints, with … for what differs; a block with a title is the file of that
name; `sh exit=1` says how it ends. Blocks without a language need a stage, or more than a page has.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "events.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
BLOCK = re.compile(
    r"^( *)```(?P<language>\w*)(?P<more>[^\n]*)\n(?P<text>.*?)^\1```$", re.MULTILINE | re.DOTALL
)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(each["language"], each["more"].strip(), each["text"]) for each in found]


def place(directory: Path) -> Path:
    for path in [*ROOT.glob("Pulumi*.yaml"), ROOT / "copier.yml"]:
        shutil.copy(path, directory)
    return directory


def run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("KILO_", "DATABASE_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def check_page(page: Path, directory: Path) -> int:
    """Run the page's blocks; returns how many there were."""
    printed, count = "", 0
    for language, more, text in blocks(page):
        if title := re.fullmatch(r'title="([^"]+)"', more):
            file = directory / title[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif language == "sh":
            expected = re.search(r"exit=(\d+)", more)
            done = run(text, directory)
            assert done.returncode == int(expected[1] if expected else 0), f"{text}{done.stdout}{done.stderr}"
            # A table fills its last column.
            printed, count = re.sub(r" +$", "", done.stdout, flags=re.MULTILINE), count + 1
        elif language == "text":
            pattern = ".*".join(re.escape(part) for part in text.strip().split("…"))
            assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"said:\n{text}\nprinted:\n{printed}"
    return count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_print_what_it_says(page: Path, tmp_path: Path) -> None:
    check_page(page, place(tmp_path))


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    for text in ("```sh\nexit 3\n```\n", "```sh\necho a\n```\n\n```text\nb\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(AssertionError):
            check_page(page, tmp_path)


def test_pages_that_promise_to_be_run_have_something_to_run() -> None:
    assert sum(language == "sh" for page in PAGES for language, _, _ in blocks(page)) >= 5
