"""The comment under a pull request: written by the default branch's own steps, whatever a fork uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ci.workflows import checkout_with_comment, load, run, step_with, steps, write_program

TEXT = ".ci/comment"
VARIABLES = {"GH_TOKEN": "t", "REPOSITORY": "org/kilo", "HEAD": "fork:branch", "COMMIT": "abc"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return checkout_with_comment(tmp_path)


def place_of_artifact(checkout: Path, temporary: Path) -> Path:
    """Where the workflow unpacks it: over the checkout, where it names no folder."""
    (download,) = [
        step["with"]
        for _, step in steps(load("preview-comment.yml"))
        if "download-artifact" in step.get("uses", "")
    ]
    return checkout / download.get("path", ".").replace("${{ runner.temp }}", str(temporary))


def write_github(folder: Path, *, pulls: str = "7", comments: str = "", code: int = 0) -> None:
    """``gh`` as it answers with ``--jq``, and keeps how it was called."""
    write_program(
        folder,
        "gh",
        f'echo "$*" >> "{folder}/called"\n'
        f'case "$*" in *"/pulls "*) printf "{pulls}"; exit {code};;\n'
        f'*"/comments --jq"*) printf "{comments}";; esac',
    )


def test_nothing_that_a_fork_uploads_is_run(checkout: Path, tmp_path: Path) -> None:
    temporary, programs = tmp_path / "temporary", tmp_path / "programs"
    artifact = place_of_artifact(checkout, temporary)
    # A fork's own run of preview.yml makes the artifact, with whatever it likes.
    write_program(artifact / ".ci", "comment", f"touch {tmp_path}/taken; echo taken")
    (artifact / "comment.md").write_text("### dev\n\nNo changes.\n")
    write_github(programs)
    variables = {**VARIABLES, "RUNNER_TEMP": str(temporary)}
    done = run(load("preview-comment.yml"), TEXT, place=checkout, programs=programs, variables=variables)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "taken").exists()
    assert "api repos/org/kilo/issues/7/comments -F body=@said.md" in (programs / "called").read_text()
    assert (checkout / "said.md").read_text() == "<!-- kilo preview-diff -->\n### dev\n\nNo changes.\n"


@pytest.mark.parametrize(
    ("comments", "called"),
    [
        ("", "api repos/org/kilo/issues/7/comments -F body=@said.md"),
        ("11\\n12\\n", "api -X PATCH repos/org/kilo/issues/comments/11 -F body=@said.md"),
    ],
)
def test_it_is_one_comment(comments: str, called: str, checkout: Path, tmp_path: Path) -> None:
    temporary, programs = tmp_path / "temporary", tmp_path / "programs"
    artifact = place_of_artifact(checkout, temporary)
    artifact.mkdir(parents=True, exist_ok=True)
    (artifact / "comment.md").write_text("### dev\n")
    write_github(programs, comments=comments)
    variables = {**VARIABLES, "RUNNER_TEMP": str(temporary)}
    done = run(load("preview-comment.yml"), TEXT, place=checkout, programs=programs, variables=variables)
    assert done.returncode == 0, done.stderr
    assert (programs / "called").read_text().splitlines()[-1] == called


def test_github_that_does_not_answer_is_not_a_pull_request_that_is_gone(
    checkout: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    write_github(programs, pulls="", code=1)
    variables = {**VARIABLES, "RUNNER_TEMP": str(tmp_path)}
    done = run(load("preview-comment.yml"), TEXT, place=checkout, programs=programs, variables=variables)
    assert done.returncode != 0
    assert "no open pull request" not in done.stdout


def test_which_pull_request_is_not_for_the_artifact_to_say() -> None:
    step = step_with(load("preview-comment.yml"), TEXT)
    assert {name for name in step["env"] if "workflow_run" in step["env"][name]} == {"HEAD", "COMMIT"}
