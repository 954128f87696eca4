"""Reading a stage's outputs: by command, by file, by StackReference."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
from ruamel.yaml import YAML

from kilo.automation import read_outputs
from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.outputs import Format, render
from kilo.project import find_project
from tests.components.recorder import record
from tests.infra.test_program import program

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def exported() -> dict[str, Any]:
    """What the dev stage exports, as the engine's ``stack output --json`` has it."""
    return json.loads(json.dumps(program("dev").outputs))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a ``pulumi`` on PATH that answers as told."""

    def answer(stdout: str = "", stderr: str = "", code: int = 0) -> None:
        script = tmp_path / "pulumi"
        script.write_text(
            f"#!/bin/sh\nprintf %s {shlex.quote(stdout)}\nprintf %s {shlex.quote(stderr)} >&2\nexit {code}\n",
            encoding="utf-8",
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return answer


def test_outputs_are_read_through_the_engine(engine: Any, exported: dict[str, Any], tmp_path: Path) -> None:
    engine(json.dumps(exported))
    assert read_outputs("dev", tmp_path) == StackOutputs.model_validate(exported)


def test_rotation_reaches_the_platform_s_own_values(exported: dict[str, Any]) -> None:
    """What it left behind could not be read once the old key is gone."""
    settings = StackOutputs.model_validate(exported).field_encryption
    (events,) = settings.tables
    assert (events.table, events.row_column) == ("events", "fingerprint")
    assert events.documents == {"payload": ("email", "phone")}
    assert settings.in_flight_days == 3  # what the dev bus keeps


def test_a_stage_that_was_never_deployed_is_told(engine: Any, tmp_path: Path) -> None:
    engine("{}")
    with pytest.raises(CheckFailed, match=r"stage dev: has no outputs; deploy it"):
        read_outputs("dev", tmp_path)


def test_an_unknown_stage_is_told(engine: Any, tmp_path: Path) -> None:
    engine(stderr="error: no stack named 'qa' found\n", code=255)
    with pytest.raises(BadInput, match=r"stage qa: there is no such stack"):
        read_outputs("qa", tmp_path)


def test_an_unreachable_backend_is_told_in_the_engines_words(engine: Any, tmp_path: Path) -> None:
    engine(stderr="some noise\nerror: could not open bucket\nmore", code=255)
    with pytest.raises(Unreachable, match=r"^pulumi: could not open bucket$"):
        read_outputs("dev", tmp_path)


def test_a_missing_engine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match=r"pulumi: not on PATH"):
        read_outputs("dev", tmp_path)


def test_outputs_of_another_contract_name_the_field(
    engine: Any, exported: dict[str, Any], tmp_path: Path
) -> None:
    engine(json.dumps({**exported, "contract_version": 1, "bus": {}}))
    with pytest.raises(BadInput, match=r"stage dev: output contract_version: .*deployed: 1"):
        read_outputs("dev", tmp_path)


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path


def test_outside_of_a_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no Pulumi.yaml here or above"):
        find_project(tmp_path)


def test_json_and_yaml_hold_the_same(exported: dict[str, Any]) -> None:
    outputs = StackOutputs.model_validate(exported)
    from_json = json.loads(render(outputs, Format.JSON))
    assert YAML(typ="safe").load(render(outputs, Format.YAML)) == from_json
    assert StackOutputs.model_validate(from_json) == outputs


def test_env_is_read_by_a_shell(exported: dict[str, Any]) -> None:
    bus = {**exported["bus"], "url": "nats://host:4222/with space'and\"quotes$HOME"}
    text = render(StackOutputs.model_validate({**exported, "bus": bus}), Format.ENV)
    names = ("BUS_URL", "DATABASE_PORT", "TENANTS_ACME_TIER", "TENANTS_ACME_ENCRYPTED_FIELDS")
    show = "\n".join(f'printf "%s\\n" "$KILO_{name}"' for name in names)
    done = subprocess.run(["sh", "-c", f"{text}\n{show}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [bus["url"], "5433", "gold", "email,phone"]


def test_a_reader_takes_what_it_knows_of_a_later_program(exported: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    newer = {**exported, "queue": "later", "bus": {**exported["bus"], "cluster": "later"}}
    file.write_text(json.dumps(newer), encoding="utf-8")
    assert load_outputs(file) == StackOutputs.model_validate(exported)


def test_the_example_by_file_runs(exported: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(exported), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "by_file.py", "payment"],
        env={**os.environ, "KILO_OUTPUTS": str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *tenants = done.stdout.splitlines()
    assert first.endswith("subject events.payment, published by change capture")
    assert "acme (gold): email, phone encrypted under alias/kilo/dev/tenant/acme" in tenants


def test_the_example_by_stack_reference_runs(exported: dict[str, Any]) -> None:
    answers = {"pulumi:pulumi:StackReference": {"outputs": exported, "secretOutputNames": []}}

    def consumer() -> None:
        pulumi.runtime.config.set_config("kilo:stage", "organization/kilo/dev")
        runpy.run_path(str(EXAMPLES / "by_stack_reference"), run_name="__main__")

    recording = record(consumer, answers=answers)
    assert recording.outputs == {
        "bus": "nats://nats.kilo.svc.cluster.local:4222",
        "subject": "events.order",
        "gold_tenants": ["acme", "umbrella"],
    }
