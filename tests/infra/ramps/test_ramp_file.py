"""Writing weights: what changes in the stage's file, and what stays."""

from __future__ import annotations

import difflib
import re
import shutil
from pathlib import Path

import pytest

from infra.configuration import read_stage_file
from infra.ramps.stage_file import RampFile
from kilo.errors import BadInput

ROOT = Path(__file__).parents[3]
FEATURES = (
    "  kilo:features:\n    - { id: checkout-v2, path: /v1/checkout, next: { image: 'a/b:1' } }\n"
    "    - { id: search, next: { image: 'a/b:1' } }\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = Path(shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path))
    # Every way in which an entry may be written.
    text = re.sub(r"(?m)^ +ramps: .*\n|^  kilo:features:\n(    .*\n)+", "", path.read_text())
    for before, after in (
        ("    - id: globex\n      tier: silver\n", "    - { id: globex, tier: silver } # one line\n"),
        (
            "    - id: hooli\n      tier: silver\n",
            "    - id: hooli\n      ramps: # two\n        checkout-v2: 5 # five\n        search: shadow\n"
            "      tier: silver\n",
        ),
        ("      tier: bronze\n", "      tier: bronze\n      ramps: {checkout-v2: 1} # one\n"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    path.write_text(text + FEATURES)
    return path


def changed(before: str, path: Path) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), path.read_text().splitlines())
    return [line for line in lines if line[0] in "+-"]


@pytest.mark.parametrize(
    ("weights", "added"),
    [
        ({("acme", "search"): 5}, ["+       ramps: { search: 5 }"]),
        (
            {("globex", "search"): 5},
            [
                "-     - { id: globex, tier: silver } # one line",
                "+     - { id: globex, tier: silver, ramps: { search: 5 } } # one line",
            ],
        ),
        (
            {("hooli", "checkout-v2"): 25},
            ["-         checkout-v2: 5 # five", "+         checkout-v2: 25 # five"],
        ),
        ({("hooli", "search"): 1}, ["-         search: shadow", "+         search: 1"]),
        (
            {("initech", "search"): "shadow"},
            [
                "-       ramps: {checkout-v2: 1} # one",
                "+       ramps: {checkout-v2: 1, search: shadow } # one",
            ],
        ),
        ({("initech", "checkout-v2"): 1}, []),
    ],
)
def test_a_weight_changes_its_own_line(
    path: Path, weights: dict[tuple[str, str], int], added: list[str]
) -> None:
    before = path.read_text()
    RampFile(path).set_weights(weights)
    assert changed(before, path) == added
    assert weights.items() <= RampFile(path).weights.items()


def test_many_weights_are_written_at_once_and_nothing_else_changes(path: Path) -> None:
    before = read_stage_file(path)
    everyone = {(tenant, feature): 7 for tenant in before.tenant_ids for feature in ("checkout-v2", "search")}
    RampFile(path).set_weights(everyone)
    after = RampFile(path)
    assert after.weights == everyone
    plain = {"tenants": ()}
    assert after.settings.model_copy(update=plain) == before.model_copy(update=plain)
    comments = [line.partition("#")[2] for line in path.read_text().splitlines()]
    assert {" one line", " two", " five", " one"} <= set(comments)


def test_what_would_be_wrong_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    for weights, said in (
        ({("acme", "nothing"): 5}, "there is no feature 'nothing'"),
        ({("nobody", "search"): 5}, "no tenant 'nobody'"),
        ({("acme", "search"): 5, ("globex", "search"): 101}, "kilo:tenants"),
    ):
        with pytest.raises(BadInput, match=said):
            RampFile(path).set_weights(weights)
        assert path.read_bytes() == before


def test_what_others_wrote_meanwhile_is_kept(path: Path) -> None:
    file = RampFile(path)
    path.write_text(path.read_text().replace("timeout_ms: 2000", "timeout_ms: 2001"))
    file.set_weights({("acme", "search"): 5})
    assert "timeout_ms: 2001" in path.read_text()
    assert file.settings.tiers.gold.timeout_ms == 2001
