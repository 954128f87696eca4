"""The tutorial as somebody follows it: its `sh` blocks in one shell, on a dev stage that this brings up.

By name alone (make test TESTS=tests/site): minutes. It is the checkout itself that has the stage then.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.reference.test_pages import ROOT, blocks, run

TUTORIAL = ROOT / "docs" / "tutorial.md"
SERVICE = ROOT / "build" / "orders"
BETWEEN = "@@ the next block @@"


@pytest.fixture(scope="module")
def stage() -> Iterator[None]:
    """A stage that was up stays up."""
    kilo = ROOT / ".venv" / "bin" / "kilo"
    was_up = subprocess.run([kilo, "status"], cwd=ROOT, capture_output=True, check=False).returncode == 0
    subprocess.run([kilo, "up", "--no-tour"], cwd=ROOT, check=True)
    yield
    if not was_up:
        subprocess.run([kilo, "down"], cwd=ROOT, check=True)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("stage")
def test_the_tutorial_works_from_its_first_to_its_last_line() -> None:
    shutil.rmtree(SERVICE, ignore_errors=True)
    found = blocks(TUTORIAL)
    commands = [text for language, _, text in found if language == "sh"]
    done = run(f"\necho '{BETWEEN}'\n".join(commands), ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = iter(done.stdout.split(f"{BETWEEN}\n"))
    last = ""
    for language, _, text in found:
        if language == "sh":
            last = re.sub(r" +$", "", next(printed), flags=re.MULTILINE)
        elif language == "text":
            pattern = ".*".join(re.escape(part) for part in text.strip().split("…"))
            assert re.fullmatch(pattern, last.strip(), re.DOTALL), f"said:\n{text}\nprinted:\n{last}"
    # The stage keeps its data: a second time the event is there already.
    assert "accepted" in done.stdout or "duplicate" in done.stdout
    assert "tutorial-1" in done.stdout
    assert "item.changed of acme" in done.stdout
    assert 'service="orders",tenant="acme"' in (SERVICE / "metrics.txt").read_text()
    # What the page says of the database.
    assert "ana@example.com" not in _rows()


def _rows() -> str:
    """What the database has of acme's item and event."""
    query = (
        "SELECT payload::text FROM outbox WHERE tenant = 'acme' AND aggregate_id = 'tutorial'"
        " UNION ALL SELECT email::text FROM items WHERE tenant = 'acme'"
    )
    connect = "psycopg.connect(os.environ['DATABASE_URL'])"
    code = f"import os, psycopg; print({connect}.execute({query!r}).fetchall())"
    done = run(f'eval "$(.venv/bin/kilo env)"; .venv/bin/python -c {shlex.quote(code)}', ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(") >= 2
    return done.stdout
