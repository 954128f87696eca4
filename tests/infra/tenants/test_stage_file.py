"""Editing the tenant list: what changes, what stays, what is refused."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pytest

from infra.configuration import read_stage_file
from infra.tenants.stage_file import StageFile
from kilo.errors import BadInput

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["dev", "stage", "prod"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / f"Pulumi.{request.param}.yaml", tmp_path))


def changed(path: Path) -> list[str]:
    before = (ROOT / path.name).read_text().splitlines()
    lines = difflib.ndiff(before, path.read_text().splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_adding_changes_one_line(path: Path) -> None:
    StageFile(path).add("id: acorn, tier: silver")
    assert changed(path) == ["+     - { id: acorn, tier: silver }"]
    assert read_stage_file(path).tenant_ids[-1] == "acorn"


@pytest.mark.parametrize("position", [0, 1, 3, -1])
def test_removing_takes_the_entry_and_nothing_else(path: Path, position: int) -> None:
    before = read_stage_file(path).tenant_ids
    tenant = before[position]
    StageFile(path).remove(tenant)
    assert read_stage_file(path).tenant_ids == tuple(one for one in before if one != tenant)
    assert all(line.startswith("- ") for line in changed(path))


@pytest.mark.parametrize("position", [0, 1, 3, -1])
def test_a_tenant_that_is_refused_keeps_its_entry(path: Path, position: int) -> None:
    tenant = read_stage_file(path).tenant_ids[position]
    StageFile(path).refuse(tenant)
    after = read_stage_file(path)
    assert [entry.id for entry in after.tenants if not entry.accepting] == [tenant]
    assert after.model_copy(update={"tenants": ()}) == read_stage_file(ROOT / path.name).model_copy(
        update={"tenants": ()}
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("id: acme, tier: gold", "tenant 'acme' is already"),
        ("id: acorn, tier: platinum", "kilo:tenants"),
        ("id: Acorn, tier: gold", "lower-case letters"),
    ],
)
def test_what_would_be_wrong_is_not_written(path: Path, fields: str, said: str) -> None:
    before = path.read_bytes()
    with pytest.raises(BadInput, match=said):
        StageFile(path).add(fields)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_tenant_is_named_with_those_there_are(path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tenant 'nobody'; tenants: acme, "):
        StageFile(path).remove("nobody")
