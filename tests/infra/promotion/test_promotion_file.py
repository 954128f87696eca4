"""Writing what a promotion changes: what changes in the stage's file, and what stays."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pytest

from infra.promotion.ports import changes_to
from infra.promotion.stage_file import PromotionFile
from infra.promotion.table import off_of_row, off_values, on_values, steps_of
from infra.promotion_settings import ROWS
from kilo.errors import BadInput
from kilo.promotion.record import Value

ROOT = Path(__file__).parents[3]
DIGEST = f"ghcr.io/kilo-platform/kilo@sha256:{'a' * 64}"
GATEWAY = "kilo:gateway: { replicas: 1, capacity_requests_per_second: 2000"
OWN = "# the platform's own image"
ENCRYPTED = "# encrypted under the tenant's own key before they are stored"
BLOCKS = """\
  kilo:outbox: # how events go out
    workers: 2 # two of them
  kilo:registry:
    repositories: # ours
      - shop/orders
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "Pulumi.dev.yaml", tmp_path))


def changed(before: str, path: Path) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), path.read_text().splitlines())
    return [line for line in lines if line[0] in "+-"]


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        ({"outbox.workers": 0}, ["-     workers: 1", "+     workers: 0"]),
        ({"outbox.cdc_paused": True}, ["+     cdc_paused: true"]),
        ({"outbox.workers": 1, "outbox.cdc_paused": False}, []),
        ({"registry.mirroring": False}, ["+     mirroring: false"]),
        (
            {"gateway.shedding_enabled": False},
            [
                f"-   {GATEWAY} }}",
                f"+   {GATEWAY}, shedding_enabled: false }}",
            ],
        ),
        (
            {"images.runtime": DIGEST},
            [
                f'-   kilo:images: {{ runtime: "ghcr.io/kilo-platform/kilo:0.1.0" }} {OWN}',
                f'+   kilo:images: {{ runtime: "{DIGEST}" }} {OWN}',
            ],
        ),
        (
            {"tiers.gold.encrypted_fields": ()},
            [
                f"-       encrypted_fields: [email, phone] {ENCRYPTED}",
                f"+       encrypted_fields: [] {ENCRYPTED}",
            ],
        ),
        (
            {"tenants.acme.ramps.rehearsal": 5},
            [
                "-       ramps: { rehearsal: 0 } # the same for one feature alone",
                "+       ramps: { rehearsal: 5 } # the same for one feature alone",
            ],
        ),
    ],
    ids=str,
)
def test_the_setting_changes_and_nothing_else(
    path: Path, wanted: dict[str, Value], difference: list[str]
) -> None:
    before = path.read_text()
    file = PromotionFile(path)
    was = {setting: file.value(setting) for setting in wanted}
    file.set(wanted)
    assert changed(before, path) == difference
    assert {setting: PromotionFile(path).value(setting) for setting in wanted} == wanted
    file.set(was)
    assert {setting: PromotionFile(path).value(setting) for setting in was} == was


def test_blocks_of_every_style_keep_their_comments(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("  kilo:outbox:"))
    end = next(n for n in range(first + 1, len(lines)) if not lines[n].startswith("    "))
    registry = next(number for number, line in enumerate(lines) if line.startswith("  kilo:registry:"))
    last = next(n for n in range(registry + 1, len(lines)) if not lines[n].startswith("    "))
    path.write_text("".join([*lines[:first], *lines[end:registry], *lines[last:], BLOCKS]))
    before = path.read_text()
    PromotionFile(path).set({"outbox.workers": 3, "outbox.cdc_paused": True, "registry.mirroring": False})
    assert changed(before, path) == [
        "+     cdc_paused: true",
        "-     workers: 2 # two of them",
        "+     workers: 3 # two of them",
        "+     mirroring: false",
    ]


def test_what_the_file_does_not_take_is_not_written(path: Path) -> None:
    before = path.read_text()
    with pytest.raises(BadInput, match=r"outbox\.workers: 99 is not right"):
        PromotionFile(path).set({"outbox.cdc_paused": True, "outbox.workers": 99})
    with pytest.raises(BadInput, match="there is no such setting"):
        PromotionFile(path).set({"outbox.invented": 1})
    assert path.read_text() == before


def test_the_row_switches_on_what_is_off_alone(path: Path) -> None:
    file = PromotionFile(path)
    assert changes_to(file, on_values(file)) == ()
    assert {each.setting: each.after for each in changes_to(file, off_values(file))} == {
        "outbox.workers": 0,
        "outbox.cdc_paused": True,
    }
    file.set(off_values(file))
    assert on_values(file) == {"outbox.workers": 1, "outbox.cdc_paused": False}
    # Two workers are not made one.
    file.set({"outbox.workers": 2})
    assert on_values(file) == {"outbox.cdc_paused": False}


def test_the_stages_own_actions_go_before_the_tables(path: Path) -> None:
    actions = "[{ setting: ramps.rehearsal, on: 5, off: 0 }, { setting: registry.mirroring, on: true }]"
    path.write_text(f"{path.read_text().rstrip()}\n  kilo:promotion: {{ actions: {actions} }}\n")
    file = PromotionFile(path)
    tenants = [tenant.id for tenant in file.settings.tenants]
    assert on_values(file) == {
        **{f"tenants.{tenant}.ramps.rehearsal": 5 for tenant in tenants},
        "registry.mirroring": True,
    }
    file.set(on_values(file))
    assert {file.weights[tenant, "rehearsal"] for tenant in tenants} == {5}
    file.set(off_values(file))
    assert {file.weights[tenant, "rehearsal"] for tenant in tenants} == {0}
    # Every weight goes back by the table's own row, of whatever feature.
    file.set({"tenants.acme.ramps.rehearsal": 50})
    assert changes_to(file, off_of_row(file, ROWS["prod"]))[0].before == 50


def test_weights_are_raised_by_the_steps_that_the_file_names(path: Path) -> None:
    action = "{ setting: ramps.rehearsal, steps: [1, 5, 25], off: 0 }"
    path.write_text(f"{path.read_text().rstrip()}\n  kilo:promotion: {{ actions: [{action}] }}\n")
    file = PromotionFile(path)
    name = "tenants.acme.ramps.rehearsal"
    change = changes_to(file, on_values(file), steps_of(file))[0]
    assert (change.setting, change.before, change.after, change.steps) == (name, 0, 25, (1, 5, 25))
    assert [change.at(step) for step in range(4)] == [1, 5, 25, 25]
    # One that was raised already is left, and off is what its roll-back sets.
    file.set({name: 5})
    assert name not in on_values(file)
    assert off_values(file)[name] == 0


def test_a_weight_that_is_further_on_is_not_lowered(path: Path) -> None:
    text = path.read_text().rstrip()
    path.write_text(f"{text}\n  kilo:promotion: {{ actions: [{{ setting: ramps, steps: [5, 25] }}] }}\n")
    file = PromotionFile(path)
    file.set({"tenants.acme.ramps.rehearsal": 50, "tenants.globex.ramps.rehearsal": 5})
    changes = changes_to(file, on_values(file), steps_of(file))
    assert [(each.setting, each.before, each.steps) for each in changes] == [
        ("tenants.globex.ramps.rehearsal", 5, (25,))
    ]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("{ setting: protect, off: false }", '"protect" is not right; use outbox.workers'),
        ("{ setting: outbox.workers, on: 1.5 }", "actions"),
        ("{ setting: outbox.workers, of: 0 }", "did you mean 'off'"),
        ("{ setting: outbox.workers, steps: [1, 2] }", "steps are of weights"),
        ("{ setting: ramps.search, on: 5, steps: [1, 5] }", "steps are of weights"),
        ("{ setting: ramps.search, steps: [5, 1] }", "steps 5, 1: each must be more than the one before"),
        ("{ setting: ramps.search, steps: [5, 5] }", "each must be more than the one before"),
        ("{ setting: ramps.search, steps: [0, 5] }", r"steps"),
    ],
)
def test_an_action_that_is_none_is_said(path: Path, action: str, said: str) -> None:
    path.write_text(f"{path.read_text().rstrip()}\n  kilo:promotion: {{ actions: [{action}] }}\n")
    with pytest.raises(BadInput, match=said):
        PromotionFile(path)
