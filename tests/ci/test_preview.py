"""The preview's last job: one comment of what the stages' jobs found, and a check that fails by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ci.workflows import checkout_with_comment, load, run

SAID = "### {}\n\nsomething\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return checkout_with_comment(tmp_path)


def comment(place: Path) -> str:
    summary = place / "summary"
    done = run(
        load("preview.yml"),
        ".ci/comment",
        place=place,
        programs=place / "programs",
        variables={"GITHUB_STEP_SUMMARY": str(summary)},
    )
    assert done.returncode == 0, done.stderr
    assert summary.read_text() == (place / "comment.md").read_text()
    return summary.read_text()


def test_what_the_clouds_say_comes_before_the_rehearsal(place: Path) -> None:
    (place / "diff").mkdir()
    for name in ("full", "prod", "stage"):
        (place / "diff" / f"{name}.md").write_text(SAID.format(name))
    said = comment(place)
    places = [said.index(f"### {name}") for name in ("prod", "stage", "full")]
    assert places == sorted(places)


@pytest.mark.parametrize("stages", [[], ["prod"]])
def test_a_rehearsal_that_came_to_nothing_is_told(stages: list[str], place: Path) -> None:
    """Else the comment of the commit before would stay, and a job for nothing fail."""
    for name in stages:
        (place / "diff").mkdir(exist_ok=True)
        (place / "diff" / f"{name}.md").write_text(SAID.format(name))
    said = comment(place)
    assert "The rehearsal came to nothing" in said
    assert all(f"### {name}" in said for name in stages)


@pytest.mark.parametrize(("refused", "code"), [([], 0), (["refused-prod"], 1), (["refused"], 1)])
def test_a_refused_deployment_fails_the_check(refused: list[str], code: int, place: Path) -> None:
    (place / "diff").mkdir()
    for name in refused:
        (place / "diff" / name).write_text("1\n")
    done = run(load("preview.yml"), "'refused*'", place=place, programs=place / "programs", variables={})
    assert done.returncode == code
