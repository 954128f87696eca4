"""The engine's semantics, the same for every provider."""

from __future__ import annotations

import pytest

from tests.sandbox.providers.examples import Example, raw
from tests.sandbox.support import Project


def test_lives_through_create_update_replace_and_destroy(project: Project, example: Example) -> None:
    preview = project.preview(example.create)
    assert preview.steps == {"one": "create"}

    assert project.up().steps == {"one": "create"}
    name = project.outputs()["name"]
    assert _exists(example, name)
    assert project.up(None, "--expect-no-changes").steps == {}

    if example.update is not None:
        assert project.preview(example.update).diffs == {"one": example.updated}
        assert project.up().steps == {"one": "update"}
        assert project.outputs()["name"] == name, "a generated name stays"
        project.up(example.create)

    assert project.preview(example.replace).diffs["one"] == example.replaced
    assert project.up().steps == {"one": "replace"}
    renewed = project.outputs()["name"]
    assert renewed != name
    assert _exists(example, renewed)
    assert not _exists(example, name, otherwise=False)
    assert project.up(None, "--expect-no-changes").steps == {}

    assert project.engine("destroy").steps == {"one": "delete"}
    assert not _exists(example, renewed, otherwise=False)
    assert [resource["type"] for resource in project.state() if resource["custom"]] == []


def test_a_preview_touches_nothing(project: Project, example: Example) -> None:
    project.up(example.create)
    name, state = project.outputs()["name"], project.state()
    project.preview(example.replace)
    project.program("")
    assert project.preview().steps == {"one": "delete"}
    assert _exists(example, name)
    assert project.state() == state


def test_what_is_wrong_is_said_with_its_path_all_at_once(project: Project, example: Example) -> None:
    said = project.preview(example.wrong, code=None)
    assert said.code != 0
    for path in example.wrong_paths:
        assert path in said.messages


def test_an_unknown_type_is_an_error(project: Project, example: Example) -> None:
    said = project.preview(raw(example.unknown_type, {}), code=None)
    assert said.code != 0
    assert "has no such resource type" in said.messages
    said = project.preview(raw(example.missing_type, {}), code=None)
    assert said.code != 0
    assert "the sandbox's" in said.messages
    assert "sandbox/providers/" in said.messages


def test_what_only_an_update_knows_is_unknown_in_a_preview(project: Project, example: Example) -> None:
    preview = project.preview(example.unknowns)
    assert preview.steps == {"one": "create", "two": "create"}
    project.up()
    assert project.outputs()["two"]
    assert project.up(None, "--expect-no-changes").steps == {}


def test_a_secret_is_encrypted_wherever_it_lies(project: Project, example: Example) -> None:
    outcome = project.up(example.secret)
    assert project.outputs()["secret"] == "correct horse"
    assert "correct horse" not in str(project.state())
    assert "correct horse" not in str(outcome.events)
    for file in project.layout.state.rglob("*"):
        assert not file.is_file() or b"correct horse" not in file.read_bytes(), file


def test_a_refresh_finds_drift_and_an_update_mends_it(project: Project, example: Example) -> None:
    if example.drift is None:
        pytest.skip("nothing lies outside the state")
    project.up(example.create)
    example.drift(project.outputs()["name"])
    shown = project.engine("refresh", "--preview-only")
    assert list(shown.diffs["one"]) == [example.drifted]
    assert project.up(None, "--refresh").steps == {"one": "update"}
    assert project.engine("refresh", "--preview-only", "--expect-no-changes").diffs == {}


def test_what_was_deleted_behind_the_engines_back_is_found_and_made_again(
    project: Project, example: Example
) -> None:
    if example.remove is None:
        pytest.skip("nothing lies outside the state")
    project.up(example.create)
    name = project.outputs()["name"]
    example.remove(name)
    assert project.engine("refresh", "--preview-only").steps == {"one": "delete"}
    assert project.up(None, "--refresh").steps["one"] == "create"
    assert _exists(example, project.outputs()["name"])
    # Deleting what is already gone is no error.
    example.remove(project.outputs()["name"])
    project.engine("destroy")


def test_what_was_made_by_hand_is_imported(project: Project, example: Example) -> None:
    assert example.adopt is not None
    program = example.adopt()
    assert project.up(program).steps == {"one": "import"}
    assert project.up(None, "--expect-no-changes").steps == {}


def _exists(example: Example, name: str, *, otherwise: bool = True) -> bool:
    return example.exists(name) if example.exists else otherwise
