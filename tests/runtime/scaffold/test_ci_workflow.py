"""A service's release: that its image is the same in both registries is asked of the stage's own outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kilo.promotion.parity import registry_locations
from kilo.registry.reference import Reference
from tests.ci.workflows import run, write_program
from tests.events import make_outputs
from tests.runtime.scaffold.variants import ROOT, make, template_repository

DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    template = template_repository(tmp_path_factory.mktemp("template") / "platform")
    service = make("http", template, tmp_path_factory.mktemp("services"), "orders")
    return yaml.safe_load((service / ".github" / "workflows" / "ci.yml").read_text())


def ask(workflow: dict[str, Any], place: Path, *, answers: str) -> tuple[int, list[str]]:
    """Run the step; its exit code, and how parity was asked, which answers with each code in turn."""
    programs, outputs = place / "programs", make_outputs()
    (place / "stage.json").write_text(outputs.model_dump_json())
    (place / "answers").write_text(answers)
    write_program(
        programs,
        "kilo",
        f'if [ "$1" = outputs ]; then cat {place}/stage.json; exit; fi\n'
        f'echo "$*" >> {place}/called\n'
        f"code=$(head -n 1 {place}/answers); sed -i 1d {place}/answers; exit $code",
    )
    write_program(programs, "sleep", "")
    variables = {"STAGE": "dev", "DIGEST": DIGEST, "IMAGE": f"{outputs.registries.primary.url}/orders"}
    done = run(workflow, "kilo promote parity", place=place, programs=programs, variables=variables)
    return done.returncode, (place / "called").read_text().splitlines()


def test_the_mirror_is_waited_for(workflow: dict[str, Any], tmp_path: Path) -> None:
    code, called = ask(workflow, tmp_path, answers="1\n3\n0\n")
    assert code == 0
    assert called == [f"promote parity orders@{DIGEST} --stages outputs.json"] * 3
    # The name is the one below the registries' addresses, and the outputs are a stage's.
    assert json.loads((tmp_path / "outputs.json").read_text()) == json.loads(
        (tmp_path / "stage.json").read_text()
    )
    for location in registry_locations([make_outputs()]):
        assert Reference.parse(f"{location.url}/orders@{DIGEST}").digest == DIGEST


def test_what_is_never_mirrored_is_not_released(workflow: dict[str, Any], tmp_path: Path) -> None:
    code, called = ask(workflow, tmp_path, answers="1\n" * 100)
    assert code == 1
    assert len(called) > 10
    # A mistake is no matter of time.
    (tmp_path / "called").unlink()
    code, called = ask(workflow, tmp_path, answers="2\n" * 100)
    assert (code, len(called)) == (2, 1)


def test_it_has_the_credentials_of_both_clouds(workflow: dict[str, Any]) -> None:
    action = yaml.safe_load((ROOT / ".github" / "actions" / "cloud" / "action.yml").read_text())
    job = workflow["jobs"]["mirrored"]
    (given,) = [step["with"] for step in job["steps"] if step.get("uses") == "./.github/actions/cloud"]
    assert given.keys() == action["inputs"].keys()
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
