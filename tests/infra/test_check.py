"""``kilo check``: every mistake of the stages' files, before anything starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kilo import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in ROOT.glob("Pulumi*.yaml"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stages_of_the_project_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": fine, ")[0] for line in said] == [
        "Pulumi.dev.yaml",
        "Pulumi.prod.yaml",
        "Pulumi.stage.yaml",
    ]
    # Where the gateway verifies nobody, it is said.
    assert ["may name any of them in x-tenant-id" in line for line in said] == [True, False, False]


def test_mistakes_of_all_stages_are_said_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, before, after in (
        ("dev", "tier: bronze", "tier: platinum"),
        ("prod", "kilo:bus:", "kilo:bsu:"),
    ):
        file = project / f"Pulumi.{stage}.yaml"
        file.write_text(file.read_text().replace(before, after, 1))
    assert cli.main(["check"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("Pulumi.stage.yaml: fine")
    assert "Pulumi.dev.yaml: kilo:tenants[" in captured.err
    assert "Pulumi.prod.yaml: kilo:bsu: unknown setting; did you mean 'bus'?" in captured.err


def test_the_rights_of_who_looks_for_drift_are_not_those_of_who_previews(
    capsys: pytest.CaptureFixture[str],
) -> None:
    may: dict[str, set[str]] = {}
    for who in ("deployer", "preview", "drift", "boundary"):
        assert cli.main(["check", "--rights", who, "-s", "prod"]) == 0
        statements = json.loads(capsys.readouterr().out)["Statement"]
        may[who] = {action for each in statements for action in each["Action"]}
    assert {"tag:GetResources", "s3:GetBucketPolicy"} <= may["drift"] - may["preview"]
    assert "ecr:BatchGetImage" in may["preview"] - may["drift"]
    assert "iam:CreateRole" in may["deployer"] - may["drift"] - may["preview"] - may["boundary"]


def test_a_stage_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "-s", "prdo"]) == 2
    assert "--stage prdo: there is no Pulumi.prdo.yaml; stages: dev, prod, stage" in capsys.readouterr().err
