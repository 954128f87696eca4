"""Who gets a preview: the step of the workflow that decides, run as it stands there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.workflows import evaluate
from tests.runtime.scaffold.variants import ROOT, make, template_repository

EVENTS = [
    ("true", "pull_request", "opened", "", "up"),
    ("true", "pull_request", "synchronize", "", "up"),
    ("true", "pull_request", "closed", "", "down"),
    # The same pull request has both events; it counts once.
    ("true", "pull_request_target", "synchronize", "", "none"),
    ("true", "pull_request_target", "labeled", "preview", "none"),
    ("true", "pull_request_target", "closed", "", "none"),
    ("false", "pull_request", "opened", "", "none"),
    ("false", "pull_request", "synchronize", "", "none"),
    ("false", "pull_request", "closed", "", "none"),
    ("false", "pull_request_target", "labeled", "bug", "none"),
    ("false", "pull_request_target", "labeled", "preview", "up"),
    ("false", "pull_request_target", "synchronize", "", "none"),
    ("false", "pull_request_target", "closed", "", "down"),
]


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    template = template_repository(tmp_path_factory.mktemp("template") / "platform")
    service = make("http", template, tmp_path_factory.mktemp("services"))
    return yaml.safe_load((service / ".github" / "workflows" / "preview.yml").read_text())


def decide(workflow: dict[str, Any], directory: Path, **event: str) -> tuple[str, str]:
    """What the step decides, and how it called GitHub."""
    (step,) = workflow["jobs"]["which"]["steps"]
    gh = directory / "gh"
    gh.write_text(f'#!/bin/sh\necho "$@" >> {directory}/called\n')
    gh.chmod(0o755)
    variables = {"EVENT": "", "ACTION": "", "LABEL": "", "OWN": "", "REPOSITORY": "org/orders", "PR": "12"}
    output = directory / "output"
    subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        env={"PATH": f"{directory}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output), **variables, **event},
        check=True,
    )
    called = directory / "called"
    return output.read_text().strip(), called.read_text().strip() if called.exists() else ""


@pytest.mark.parametrize(("own", "event", "action", "label", "decided"), EVENTS)
def test_a_fork_has_a_preview_by_a_maintainers_word_alone(
    own: str, event: str, action: str, label: str, decided: str, workflow: dict[str, Any], tmp_path: Path
) -> None:
    answer, called = decide(workflow, tmp_path, OWN=own, EVENT=event, ACTION=action, LABEL=label)
    assert answer == f"action={decided}"
    takes_back = (own, event, action) == ("false", "pull_request_target", "synchronize")
    assert called == ("api -X DELETE repos/org/orders/issues/12/labels/preview" if takes_back else "")


@pytest.mark.parametrize(("own", "event", "action", "label", "decided"), EVENTS)
def test_a_run_that_does_nothing_takes_no_place_of_one_that_does(
    own: str, event: str, action: str, label: str, decided: str, workflow: dict[str, Any]
) -> None:
    """Of a group one run waits: the next, though it would do nothing, cancels it."""
    values = {
        "github.event.number": "12",
        "github.event.pull_request.head.repo.full_name": "org/orders" if own == "true" else "fork/orders",
        "github.repository": "org/orders",
        "github.event_name": event,
        "github.event.action": action,
        "github.event.label.name": label or None,
        "github.run_id": "4711",
    }
    group = evaluate(workflow["concurrency"]["group"], values)
    assert group == f"preview-12-{'4711' if decided == 'none' else 'one'}"
    assert workflow["concurrency"]["cancel-in-progress"] is False


def test_the_pull_requests_code_runs_where_there_is_no_credential(workflow: dict[str, Any]) -> None:
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {}
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert "environment" not in jobs["build"]
    for name in ("up", "down", "comment", "which"):
        for step in jobs[name]["steps"]:
            text = step.get("run", "")
            assert "make " not in text
            assert "docker build" not in text
            assert "./service" not in text
    for job in jobs.values():
        for step in job["steps"]:
            # What an event holds reaches a shell as a variable, never as text of the script.
            assert "${{" not in step.get("run", "")
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_the_platforms_action_is_given_what_it_asks_for(workflow: dict[str, Any]) -> None:
    """Nobody else looks: the action lies in another repository, and GitHub takes an input for empty."""
    action = yaml.safe_load((ROOT / ".github" / "actions" / "cloud" / "action.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    given = [step["with"].keys() for step in steps if step.get("uses") == "./.github/actions/cloud"]
    assert given
    for each in given:
        assert each == action["inputs"].keys()


def test_images_are_signed_in_the_form_that_is_verified() -> None:
    """Cosign 3 attaches bundles; a keyless signature of cosign 2 counts nowhere."""
    places = [ROOT / ".github" / "workflows", ROOT / "templates" / "service" / ".github" / "workflows"]
    found = [
        line.partition("cosign-installer@")[2].strip()
        for place in places
        for path in place.iterdir()
        for line in path.read_text().splitlines()
        if "cosign-installer@" in line
    ]
    assert len(found) >= 4
    assert len(set(found)) == 1
    assert int(found[0].partition("# v")[2].split(".")[0]) >= 4
