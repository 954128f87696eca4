"""Tables on a terminal of 80 columns: nothing is cut, nothing is taken for markup, and there is one style."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.text import Text

from kilo.tables import print_table

ROOT = Path(__file__).parents[2]
ADDRESS = "https://" + "a" * 90 + ".example"
BACKUP = "20260216T021500Z-3fa1c2"


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *rows: tuple[object, ...]
) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("backup", "rows", "where", "problem")
    print_table(columns, rows, numbers=("rows",), title="backups [of acme]")
    return capsys.readouterr().out


def test_nothing_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = printed(capsys, monkeypatch, (BACKUP, 1_234_567, ADDRESS, "b" * 200))
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("b") == 200 + "backups".count("b") + "backup".count("b") + "problem".count("b")
    assert said.count("a") >= 90
    # What is short stays in one line, to be copied whole.
    assert BACKUP in said
    assert "1234567" in said


def test_what_others_wrote_is_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = printed(capsys, monkeypatch, ("[red]", "[/]", "tenants[key]", Text("[bold]x", style="red")))
    for text in ("[red]", "[/]", "tenants[key]", "[bold]x", "[of acme]"):
        assert text in said


def test_every_command_prints_its_tables_by_this_module() -> None:
    sources = [
        path for folder in ("runtime/kilo", "sandbox", "infra") for path in (ROOT / folder).rglob("*.py")
    ]
    own = [
        str(path.relative_to(ROOT))
        for path in sources
        if "from rich.table import" in (text := path.read_text(encoding="utf-8"))
        and re.search(r"\bTable\(", text)
    ]
    assert own == ["runtime/kilo/tables.py"]
