"""What stages consist of, and what changes of them say, is what was looked at; ``make goldens`` renews it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilo.changes.preview import parse_events
from sandbox.preview_diff import changes_of
from sandbox.rehearsal import Rehearsal
from tests.goldens.rendering import COMMENTS, PREVIEWS, comment, every_text, inventory
from tests.goldens.scenarios import CANARY, SCENARIOS, STAGE, copy_program

# Each runs the real engine, and the first of all carries a whole stage out.
pytestmark = pytest.mark.timeout(600)

REFUSED = {"removed-tenant", "renamed-tenant", "key-replaced", "component-renamed"}
BROKEN = {"policy-broken", "protection-off"}


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_a_stage_is_what_its_golden_says_and_keeps_the_policies(
    stage: str, base: Path, empty: Rehearsal
) -> None:
    said = empty.preview(base, stage)
    assert not said.refused, said.said
    found = parse_events(said.events)
    assert found.errors == ()
    assert found.violations == ()
    assert inventory(said.events) == (PREVIEWS / f"{stage}.txt").read_text(encoding="utf-8")
    assert not [text for text in (*every_text(found), inventory(said.events)) if CANARY in text]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_change_is_told_as_its_golden_tells_it(name: str, deployed: Rehearsal, tmp_path: Path) -> None:
    found = changes_of(deployed, copy_program(tmp_path / "head", SCENARIOS[name]), STAGE)
    assert bool(found.errors) == (name in REFUSED | BROKEN)
    assert any(violation.mandatory for violation in found.violations) == (name in BROKEN)
    assert comment(found) == (COMMENTS / f"{name}.md").read_text(encoding="utf-8")
    assert not [text for text in every_text(found) if CANARY in text]


def test_the_canaries_are_where_a_leak_would_show_them(base: Path, deployed: Rehearsal) -> None:
    assert CANARY in (base / f"Pulumi.{STAGE}.yaml").read_text(encoding="utf-8")
    assert CANARY in deployed.secret_values(base, STAGE)
