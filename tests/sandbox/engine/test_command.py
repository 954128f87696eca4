"""The ``pulumi`` of the sandbox reads a copy of the stage's file, however the stage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.engine.command import is_for, with_configuration, with_policies, with_stack
from sandbox.engine.environment import Layout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PULUMI_STACK", raising=False)
    text = "secretsprovider: awskms://alias/state\nconfig:\n  aws:region: eu-central-1\n"
    (tmp_path / "Pulumi.dev.yaml").write_text(text)
    return tmp_path


def engine_that_selected(folder: Path, answer: str) -> str:
    file = folder / "engine"
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    "line",
    [
        "up -s dev",
        "up --stack dev",
        "up --stack=organization/kilo/dev",
        "up -sdev",
        "up -s=dev --yes",
        "-s dev up",
        "--color never -s dev preview",
    ],
)
def test_the_copy_is_read_and_the_file_stays_as_it_is(project: Path, line: str) -> None:
    before = (project / "Pulumi.dev.yaml").read_text()
    copy = Layout(project).home / "config" / "Pulumi.dev.yaml"
    assert with_configuration(project, line.split()) == [*line.split(), "--config-file", str(copy)]
    assert "secretsprovider" not in copy.read_text()
    assert (project / "Pulumi.dev.yaml").read_text() == before


@pytest.mark.parametrize(
    "line", ["stack select up -s dev", "config -s dev", "up -s dev --config-file mine.yaml", "up -s nowhere"]
)
def test_other_commands_stay_as_they_are(project: Path, line: str) -> None:
    assert with_configuration(project, line.split()) == line.split()


def test_a_selected_stack_is_as_good_as_a_named_one(project: Path) -> None:
    engine = engine_that_selected(project, "echo dev")
    assert with_stack(engine, ["up", "--yes"]) == ["up", "--yes", "--stack", "dev"]
    assert with_stack(engine, ["up", "-s", "prod"]) == ["up", "-s", "prod"]
    assert with_stack(engine, ["stack", "ls"]) == ["stack", "ls"]


def test_without_a_selected_stack_the_engine_asks_for_one_itself(project: Path) -> None:
    engine = engine_that_selected(project, "echo no stack selected >&2; exit 1")
    assert with_stack(engine, ["up"]) == ["up"]


def test_previews_and_updates_are_held_to_the_policies(project: Path) -> None:
    pack = project / "infra" / "policy"
    pack.mkdir(parents=True)
    (pack / "PulumiPolicy.yaml").touch()
    assert with_policies(project, ["-s", "dev", "preview"]) == [
        "-s",
        "dev",
        "preview",
        "--policy-pack",
        str(pack),
    ]
    assert with_policies(project, ["up", "--policy-pack=mine"]) == ["up", "--policy-pack=mine"]
    assert with_policies(project, ["destroy"]) == ["destroy"]


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        ("kilo:protect: false", None),
        ("kilo:policy_enforcement: mandatory", None),
        ("kilo:policy_enforcement: unprotected", "unprotected.json"),
        ("kilo:policy_enforcement: advisory", "advisory.json"),
        ("kilo:policy_enforcement: lax", None),
    ],
)
def test_the_policies_are_as_strict_as_the_stage_wants_them(
    project: Path, settings: str, levels: str | None
) -> None:
    pack = project / "infra" / "policy"
    pack.mkdir(parents=True)
    for name in ("PulumiPolicy.yaml", "advisory.json", "unprotected.json"):
        (pack / name).touch()
    (project / "Pulumi.dev.yaml").write_text(f"config:\n  {settings}\n")
    options = with_policies(project, ["up", "-s", "dev"])[5:]
    assert options == (["--policy-pack-config", str(pack / levels)] if levels else [])


@pytest.mark.parametrize(
    ("where", "line", "expected"),
    [
        (".", "up -s dev", True),
        ("infra", "up -s dev", True),
        ("bootstrap", "up -s dev", False),
        ("bootstrap", "up -s dev -C ..", True),
        (".", "--cwd=bootstrap up -s dev", False),
        ("..", "up -s dev", False),
    ],
)
def test_another_projects_command_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, where: str, line: str, expected: bool
) -> None:
    for folder in ("bootstrap", "infra"):
        (project / folder).mkdir()
    for folder in (".", "bootstrap"):
        (project / folder / "Pulumi.yaml").touch()
    monkeypatch.chdir(project / where)
    assert is_for(project, line.split()) is expected
