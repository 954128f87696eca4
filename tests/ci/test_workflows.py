"""What holds for every workflow: shells that notice failures, what stands in the repository's settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ci.workflows import FILES, ROOT, evaluate, load, pipes, run, shell_of, steps, write_program

SETTING = re.compile(r"\b(?:vars|secrets)\.([A-Z_]+)")

TEMPLATES = sorted((ROOT / "templates" / "service" / ".github" / "workflows").iterdir())


@pytest.mark.parametrize("path", [*FILES, *TEMPLATES], ids=lambda path: path.name)
def test_a_pipe_fails_with_its_first_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for blank in ("[[ ' && kilo events check' if writes_events or is_consumer ]]", "[[", "]]"):
        text = text.replace(blank, "")
    workflow = yaml.safe_load(text)
    deaf = [
        step["run"]
        for _, step in steps(workflow)
        if pipes(step.get("run", "")) and "pipefail" not in shell_of(workflow, step)
    ]
    assert not deaf


def test_pipes_are_seen() -> None:
    assert pipes("a | b")
    assert pipes('case "$x" in\n  a | b) c | d ;;\nesac')
    assert not pipes("a || b\ncase x in\n  a | b)\n  c ;;\nesac\necho '|' \"a | b\"")


def test_a_plan_whose_summary_fails_is_not_put_before_its_reviewers(tmp_path: Path) -> None:
    """They approve what the summary shows."""
    programs = tmp_path / "programs"
    write_program(tmp_path / ".ci", "plan", 'mkdir -p "$2"; touch "$3"')
    write_program(programs, "kilo", "exit 2")
    variables = {
        "STAGE": "prod",
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    workflow = load("deploy.yml")
    assert run(workflow, ".ci/plan", place=tmp_path, programs=programs, variables=variables).returncode != 0
    write_program(programs, "kilo", 'echo "$*"')
    done = run(workflow, ".ci/plan", place=tmp_path, programs=programs, variables=variables)
    assert done.returncode == 0, done.stderr
    said = f"preview-diff --events prod={tmp_path}/events --full\n"
    assert (tmp_path / "plan" / "diff.md").read_text() == (tmp_path / "summary").read_text() == said


@pytest.mark.parametrize("name", ["ci.yml", "node.yml"])
def test_root_has_the_python_that_the_job_chose(name: str, tmp_path: Path) -> None:
    """Ubuntu's sudo has a PATH of its own (secure_path), whatever it is told to preserve."""
    chosen, programs = tmp_path / "chosen", tmp_path / "programs"
    write_program(
        programs,
        "sudo",
        'while [[ $1 == -* ]]; do shift; done; exec env -i PATH=/usr/bin:/bin HOME=/root "$@"',
    )
    write_program(chosen, "make", f'echo "$HOME $*" >> {tmp_path}/called')
    done = run(
        load(name),
        "sudo",
        place=tmp_path,
        programs=programs,
        variables={"PATH": f"{programs}:{chosen}:/usr/bin:/bin", "HOME": "/home/runner"},
    )
    assert done.returncode == 0, done.stderr
    what = "image" if name == "ci.yml" else "node"
    assert (tmp_path / "called").read_text() == f"/home/runner test TESTS=tests/{what}\n"


def test_who_builds_programs_keeps_them() -> None:
    """They take minutes, in each run anew."""
    for path in FILES:
        for job in load(path.name)["jobs"].values():
            if any("make test" in step.get("run", "") for step in job["steps"]):
                assert any("actions/cache@" in step.get("uses", "") for step in job["steps"]), (path, job)


def test_no_pull_request_runs_where_nobody_looks_first() -> None:
    """The roles of these environments read or change much, and have no reviewers, as `preview-STAGE` has."""
    unwatched = re.compile(r"^(drift|ramps|previews)-")
    for path in FILES:
        workflow = load(path.name)
        # YAML 1.1 takes `on` for true.
        events: Any = workflow.get("on", workflow.get(True))
        by_pull_request = {"pull_request", "pull_request_target", "workflow_run"} & {*events}
        environments = [job.get("environment", "") for job in workflow["jobs"].values()]
        assert not by_pull_request or not any(map(unwatched.match, environments)), path


def test_where_a_branch_runs_nothing_is_asked_that_its_role_may_not_see() -> None:
    """Who previews reads the state and images (infra/target/rights.py); all else is for `drift-STAGE`."""
    scripts: dict[str, set[str]] = {}
    for path in FILES:
        for job, step in steps(load(path.name)):
            if found := re.match(r"(preview|drift)-", job.get("environment", "")):
                called = re.findall(
                    r"\.ci/[a-z-]+.*?--refresh|\.ci/[a-z-]+|kilo [a-z-]+", step.get("run", "")
                )
                scripts.setdefault(found[1], set()).update(re.sub(" .* ", " ", each) for each in called)
    assert scripts["preview"] == {".ci/preview", ".ci/plan", ".ci/parity", "kilo preview-diff"}
    assert scripts["drift"] == {
        ".ci/preview --refresh",
        ".ci/undeclared",
        ".ci/comment",
        "kilo preview-diff",
    }
    for file in ("Pulumi.yaml", ".ci/preview", ".ci/plan", ".ci/parity", ".ci/held", ".ci/state-version"):
        assert "refresh" not in (ROOT / file).read_text(encoding="utf-8")


def test_every_test_is_run_by_some_job() -> None:
    """What nobody runs no longer fits what it tries, and nobody hears of it."""
    tests = {path.relative_to(ROOT).parts[:2] for path in (ROOT / "tests").rglob("test_*.py")}
    folders = {"/".join(parts) for parts in tests if not parts[1].endswith(".py")}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    by_default = settings["tool"]["pytest"]["ini_options"]["testpaths"]
    assert "tests/test_*.py" in by_default
    matrix = load("suites.yml")["jobs"]["suite"]["strategy"]["matrix"]["suite"]
    commands = " ".join(
        step.get("run", "")
        for path in FILES
        for job in load(path.name)["jobs"].values()
        for step in job["steps"]
    )
    named = {*re.findall(r"tests/[a-z]+", commands), *(f"tests/{suite}" for suite in matrix)}
    assert folders - {*by_default} == named


def section(page: str, title: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_names_every_workflow_and_all_that_they_ask_of_the_repositorys_settings() -> None:
    page = section("daily-use.md", "The workflows")
    wanted = {path.name for path in FILES}
    for path in FILES:
        wanted |= set(SETTING.findall(path.read_text(encoding="utf-8")))
        for job in load(path.name)["jobs"].values():
            if environment := job.get("environment"):
                wanted.add(re.sub(r"\$\{\{.*?\}\}", "STAGE", environment))
    assert len(wanted) > 25
    assert not {name for name in wanted if f"`{name}`" not in page}


def test_the_page_names_all_that_a_services_workflows_ask_of_its_repositorys_settings() -> None:
    page = section("preview.md", "In the workflow")
    wanted = {name for path in TEMPLATES for name in SETTING.findall(path.read_text(encoding="utf-8"))}
    assert {"REGISTRY", "PREVIEW_ROLE"} <= wanted
    assert not {name for name in wanted if f"`{name}`" not in page}


def test_a_stages_jobs_have_an_environment_and_nothing_that_it_lacks() -> None:
    """What an environment holds is empty in a job without it, and what ``if`` asks is the repository's."""
    for path in FILES:
        for name, job in load(path.name)["jobs"].items():
            of_repository = set(SETTING.findall(f"{job.get('if')} {job.get('strategy')} {job['runs-on']}"))
            asked = set(SETTING.findall(str(job))) - of_repository
            assert not asked or "environment" in job, (path.name, name, asked)


def test_a_job_that_asks_a_stages_database_can_run_in_its_network() -> None:
    found = [
        (path.name, job["runs-on"])
        for path in FILES
        for job in load(path.name)["jobs"].values()
        if "DATABASE_URL" in str(job)
    ]
    assert len(found) == 2
    assert not [name for name, runner in found if "vars." not in runner]


def test_a_rotation_that_runs_can_be_paused_and_looked_at() -> None:
    """A run takes hours, and what is in its group waits for its end."""
    text = load("fle-rotate.yml")["concurrency"]["group"]
    steps = ("status", "run", "pause", "verify", "finalize", "rollback")
    group = {step: evaluate(text, {"inputs.stage": "prod", "inputs.step": step}) for step in steps}
    assert group["run"] not in {group["pause"], group["status"]}
    assert group["pause"] != group["status"]
    assert group["run"] == group["verify"] == group["finalize"] == group["rollback"]
    assert all("prod" in each for each in group.values())


def test_what_a_failed_check_leaves_is_kept() -> None:
    """Servers write their logs below the folders of the tests that start them, and none into the checkout."""
    (kept,) = [
        step["with"]["path"]
        for _, step in steps(load("ci.yml"))
        if "upload-artifact" in step.get("uses", "") and step.get("if") == "failure()"
    ]
    assert kept == "/tmp/pytest-of-runner/pytest-0/**/*.log"


def test_the_stages_to_choose_from_are_the_same() -> None:
    choices = {
        name: load(name)[True]["workflow_dispatch"]["inputs"]["stage"]["options"]
        for name in ("deploy.yml", "fle-rotate.yml")
    }
    assert choices["deploy.yml"] == choices["fle-rotate.yml"]
    assert set(choices["deploy.yml"]) == {path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")}
