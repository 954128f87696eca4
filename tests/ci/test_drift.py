"""The nightly look for drift: which issue it writes, however much there is to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ci.workflows import checkout_with_comment, load, run, write_program

BODY_LIMIT = 65_536
"""Characters of an issue: https://github.com/orgs/community/discussions/27190"""
VARIABLES = {"STAGE": "prod", "GH_TOKEN": "t", "GH_REPO": "org/kilo"}


class Night:
    """A checkout, what its preview says, what is undeclared, and the repository's open issues."""

    def __init__(self, folder: Path) -> None:
        self.place, self.programs = checkout_with_comment(folder), folder / "programs"
        self.said, self.undeclared, self.called = folder / "said", folder / "undeclared", folder / "called"
        self.said.write_text("### prod\n\nNo changes.\n")
        self.undeclared.write_text("")
        self.called.write_text("")
        self.issues = folder / "issues.json"
        self.issues.write_text("[]")
        self.bodies = folder / "body"
        write_program(self.place / ".ci", "preview", "")
        write_program(self.place / ".ci", "undeclared", f"cat {self.undeclared}")
        write_program(self.programs, "kilo", f"cat {self.said}")
        # As GitHub's search: a title that holds the words, of which there may be more.
        write_program(
            self.programs,
            "gh",
            f'echo "$1 $2 $3" >> {self.called}\n'
            'if [ "$2" = list ]; then while [ "$1" != --jq ]; do shift; done; '
            f'jq -r "$2" {self.issues}; fi\n'
            f'while [ $# -gt 0 ]; do if [ "$1" = --body-file ]; then cp "$2" {self.bodies}; fi; shift; done',
        )

    def run(self) -> list[str]:
        """How GitHub's command was called, without the questions."""
        variables = {
            **VARIABLES,
            "RUNNER_TEMP": str(self.place),
            "GITHUB_STEP_SUMMARY": str(self.place / "summary"),
        }
        done = run(
            load("drift.yml"),
            "gh issue list",
            place=self.place,
            programs=self.programs,
            variables=variables,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in self.called.read_text().splitlines() if " list " not in line]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_the_issue_of_another_stage_is_left_alone(night: Night) -> None:
    """A search for prod finds prod-2 too."""
    night.issues.write_text(json.dumps([{"number": 5, "title": "Drift in prod-2"}]))
    assert night.run() == []
    night.said.write_text("### prod\n\n+ something\n")
    assert night.run() == ["issue create --title"]


def test_an_issue_is_updated_while_there_is_drift_and_then_closed(night: Night) -> None:
    issues = [{"number": 5, "title": "Drift in prod-2"}, {"number": 6, "title": "Drift in prod"}]
    night.issues.write_text(json.dumps(issues))
    night.undeclared.write_text("arn:aws:s3:::forgotten\n")
    assert night.run() == ["issue edit 6"]
    assert "```text\narn:aws:s3:::forgotten\n```" in night.bodies.read_text()
    night.undeclared.write_text("")
    assert night.run() == ["issue edit 6", "issue close 6"]


def test_an_issue_holds_what_github_takes_of_it(night: Night) -> None:
    lines = [f"arn:aws:s3:::forgotten-{number:04}" for number in range(3000)]
    night.said.write_text("### prod\n\n" + "+ something\n" * 6_000)
    night.undeclared.write_text("\n".join(lines) + "\n")
    assert night.run() == ["issue create --title"]
    body = night.bodies.read_text()
    assert len(body) <= BODY_LIMIT
    assert lines[0] in body
    assert "3000 in all" in body
    assert body.count("```") % 2 == 0
    assert lines[-1] in (night.place / "summary").read_text()


def test_a_preview_that_was_refused_is_not_one_without_drift(night: Night) -> None:
    """It has no changes either, since it came to none."""
    night.issues.write_text(json.dumps([{"number": 6, "title": "Drift in prod"}]))
    write_program(night.programs, "kilo", f"cat {night.said}; exit 1")
    night.said.write_text("#### prod\n\n> error: refresh failed: AccessDenied\n\nNo changes.\n")
    assert night.run() == ["issue edit 6"]
    assert "AccessDenied" in night.bodies.read_text()


def test_a_preview_that_says_nothing_fails_the_job(night: Night) -> None:
    write_program(night.programs, "kilo", "exit 2")
    with pytest.raises(AssertionError):
        night.run()
    assert night.called.read_text() == ""
