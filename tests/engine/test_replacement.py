"""Which of the old and the new goes first when a resource is replaced, and what a provider is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.engine.environment import Endpoints
from tests.sandbox.support import Project


@pytest.fixture
def project(tmp_path: Path, endpoints: Endpoints, blank: Path) -> Project:
    config = {"aws:region": "eu-central-1"}
    return Project(tmp_path, endpoints, config, blank, "import pulumi_aws as aws")


def test_what_has_a_name_of_its_own_goes_before_its_replacement(project: Project) -> None:
    project.up("aws.s3.Bucket('one', bucket='a-name-of-its-own')")
    replaced = project.up("aws.s3.Bucket('one', bucket='a-name-of-its-own', object_lock_enabled=True)")
    assert _order(replaced.events) == ["delete-replaced", "create-replacement"]


def test_what_has_a_generated_name_stays_until_its_replacement_is_there(project: Project) -> None:
    project.up("aws.s3.Bucket('one')")
    replaced = project.up("aws.s3.Bucket('one', object_lock_enabled=True)")
    assert _order(replaced.events) == ["create-replacement", "delete-replaced"]


def test_a_provider_setting_that_is_misspelt_is_said(project: Project) -> None:
    said = project.preview(
        "class Raw(pulumi.ProviderResource):\n    pass\nRaw('aws', 'mine', {'regoin': 'eu-central-1'})",
        code=None,
    )
    assert said.code != 0
    assert "regoin" in said.messages


def _order(events: list[dict[str, object]]) -> list[str]:
    steps = [event["resourcePreEvent"]["metadata"]["op"] for event in events if "resourcePreEvent" in event]  # type: ignore[index]
    return [step for step in steps if step in {"create-replacement", "delete-replaced"}]
