"""Allowing a span: in every stage's file, in every layout, and nothing else changes."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pytest

from infra.configuration import read_stage_file
from infra.sampling.key_spans import allow_span
from kilo.errors import BadInput

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["dev", "stage", "prod"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / f"Pulumi.{request.param}.yaml", tmp_path))


def changed(before: str, path: Path) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_one_line_is_added_and_a_second_name_joins_it(path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    assert allow_span(path, "POST /v1/payments")
    assert changed(before, path) == ['+     key_spans: ["POST /v1/payments"]']
    assert allow_span(path, 'say "hello": [x] # all')
    assert changed(before, path) == ['+     key_spans: ["say \\"hello\\": [x] # all", "POST /v1/payments"]']
    assert read_stage_file(path).monitoring.key_spans == ('say "hello": [x] # all', "POST /v1/payments")


def test_a_name_that_is_there_changes_nothing(path: Path) -> None:
    allow_span(path, "pay")
    before = path.read_text(encoding="utf-8")
    assert not allow_span(path, "pay")
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("    key_spans: []\n", '    key_spans: ["new"]\n'),
        ("    key_spans: [a] # why\n", '    key_spans: ["new", a] # why\n'),
        ("    key_spans: [ 'it''s ]' ]\n", "    key_spans: [ \"new\", 'it''s ]' ]\n"),
        ("    key_spans: [\n      a, # ]\n    ]\n", '    key_spans: ["new", \n      a, # ]\n    ]\n'),
        (
            "    key_spans:\n      - a # why\n      # and b\n",
            '    key_spans:\n      - a # why\n      - "new"\n      # and b\n',
        ),
    ],
)
def test_every_layout_is_kept(tmp_path: Path, layout: str, expected: str) -> None:
    path = Path(shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path))
    text = path.read_text(encoding="utf-8")
    line = "    gateway_scrape_seconds: 1"
    path.write_text(text.replace(line, layout + line), encoding="utf-8")
    assert allow_span(path, "new")
    assert path.read_text(encoding="utf-8") == text.replace(line, expected + line)


@pytest.mark.parametrize("name", ["", "n" * 129])
def test_what_would_be_wrong_is_not_written(path: Path, name: str) -> None:
    before = path.read_text(encoding="utf-8")
    with pytest.raises(BadInput, match="key_spans"):
        allow_span(path, name)
    assert path.read_text(encoding="utf-8") == before
