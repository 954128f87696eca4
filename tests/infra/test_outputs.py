"""Reading a stage's outputs: by command, by file, by StackReference."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
from ruamel.yaml import YAML

from kilo import cli
from kilo.automation import read_outputs
from kilo.contract import StackOutputs, load_outputs
from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.outputs import Format, render
from kilo.project import find_project
from sandbox.reach import curl
from tests.components.recorder import record
from tests.infra.programs import program

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
    assert done.stdout.splitlines() == [bus["url"], "5432", "gold", "email,phone"]


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
        "bus": "tls://nats.kilo.svc.cluster.local:4222",
        "subject": "events.order",
        "gold_tenants": ["acme", "umbrella"],
    }


@pytest.fixture
def checkout(engine: Any, exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, and an engine that knows the dev stage."""
    engine(json.dumps(exported))
    (tmp_path / "Pulumi.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sandboxed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the stage running on this machine."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{checkout}/.kilo/state")
    (checkout / ".kilo").mkdir()
    addresses = {
        "pod/kilo/nats-0": "127.64.0.1",
        "service/kilo/gateway": "127.96.0.1",
        "service/kilo/nats": "127.96.0.2",
        "service/monitoring/prometheus-operated": "127.96.0.3",
        "service/other/gateway": "127.96.0.4",
    }
    (checkout / ".kilo" / "addresses.json").write_text(json.dumps(addresses), encoding="utf-8")
    return checkout


def asked(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert cli.main(["outputs", "-s", "dev", *options]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("sandboxed")
def test_where_a_stage_runs_here_its_addresses_are_those_of_this_machine(
    exported: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    here = asked(capsys)
    assert here["gateway"]["url"] == "http://127.96.0.1:10080"
    assert here["bus"]["url"] == "tls://127.96.0.2:4222"
    assert asked(capsys, "--for", "host") == here
    there = asked(capsys, "--for", "cluster")
    assert (
        there["gateway"]["url"] == exported["gateway"]["url"] == "http://gateway.kilo.svc.cluster.local:10080"
    )
    # All the rest is the same.
    assert {name for name in there if there[name] != here[name]} == {"gateway", "bus", "monitoring"}


@pytest.mark.usefixtures("checkout")
def test_elsewhere_the_names_stay_and_none_are_made_up(
    exported: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(capsys)["gateway"] == exported["gateway"]
    assert cli.main(["outputs", "-s", "dev", "--for", "host"]) == 2
    told = capsys.readouterr().err
    assert "use --for cluster, and reach a Service from a pod there" in told


def test_a_service_without_an_address_here_is_named(
    sandboxed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sandboxed / ".kilo" / "addresses.json"
    # Another service's name ends in this one's.
    file.write_text(json.dumps({"service/kilo/gateway": "127.96.0.1", "service/kilo/at": "127.96.0.9"}))
    assert cli.main(["outputs", "-s", "dev"]) == 3
    assert "nats.kilo.svc.cluster.local: has no address on this machine" in capsys.readouterr().err


def test_a_line_that_people_copy_is_what_a_shell_sends(exported: dict[str, Any], tmp_path: Path) -> None:
    outputs = StackOutputs.model_validate(exported)
    (tmp_path / "curl").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "curl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", curl(outputs)], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    arguments = done.stdout.splitlines()
    assert arguments[:2] == ["-i", "http://gateway.kilo.svc.cluster.local:10080/v1/events"]
    assert "x-tenant-id: acme" in arguments
    assert re.search(r"^Idempotency-Key: \d+$", done.stdout, re.MULTILINE)
    assert json.loads(arguments[-1])["aggregate"] == "order"
