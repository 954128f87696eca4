"""What stages consist of, and what changes of them say, is what was looked at; ``make goldens`` renews it."""

from __future__ import annotations

import json
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
def test_a_change_is_told_as_its_golden_tells_it(
    name: str, base: Path, deployed: Rehearsal, tmp_path: Path
) -> None:
    found = changes_of(deployed, copy_program(tmp_path / "head", SCENARIOS[name]), STAGE)
    assert bool(found.errors) == (name in REFUSED | BROKEN)
    assert any(violation.mandatory for violation in found.violations) == (name in BROKEN)
    assert comment(found) == (COMMENTS / f"{name}.md").read_text(encoding="utf-8")
    hidden = (CANARY, *passwords(deployed, base))
    assert not [text for text in every_text(found) if any(each in text for each in hidden)]


def passwords(deployed: Rehearsal, base: Path) -> list[str]:
    """Those of the database's roles and the bus's users, as the state has them."""
    state = json.loads(deployed.secret_values(base, STAGE))["deployment"]["resources"]
    kind = "random:index/randomPassword:RandomPassword"
    results = [each["outputs"]["result"] for each in state if each["type"] == kind]
    return [json.loads(each["plaintext"]) if isinstance(each, dict) else each for each in results]


def test_what_must_not_show_is_where_a_leak_would_show_it(base: Path, deployed: Rehearsal) -> None:
    assert CANARY in (base / f"Pulumi.{STAGE}.yaml").read_text(encoding="utf-8")
    assert len(set(passwords(deployed, base))) > 10
    assert all(len(each) >= 40 for each in passwords(deployed, base))


def test_the_administrators_url_is_not_in_the_state(base: Path, deployed: Rehearsal) -> None:
    """It is there to be read, in Secrets Manager, and the schema's Job alone does."""
    assert f"{CANARY}-password" not in deployed.secret_values(base, STAGE)
