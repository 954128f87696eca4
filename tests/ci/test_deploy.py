"""The scripts of the workflows, on the real engine: only a fresh plan is carried out, and nothing but it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandbox.engine.environment import Endpoints
from tests.sandbox.support import STACK, Project

SCRIPTS = Path(__file__).parents[2] / ".ci"
CANARY = "canary-correct-horse"
PROGRAM = """
    import pulumi_random as random
    secret = pulumi.Config().require_secret("word")
    random.RandomString("one", keepers={{"word": secret}}, length={length})
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project", Endpoints())
    project.run("config", "set", "--stack", STACK, "--secret", "word", CANARY)
    project.up(PROGRAM.format(length=2))
    return project


def script(project: Project, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / name), STACK, *arguments],
        cwd=project.directory,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def planned(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    # The trial project has no policies of its own: the scripts' own pack would check nothing of it.
    pack = project.directory / "infra" / "policy"
    pack.mkdir(parents=True)
    (pack / "PulumiPolicy.yaml").write_text("description: none\nruntime: python\n")
    (pack / "__main__.py").write_text(
        "from pulumi_policy import PolicyPack, ResourceValidationPolicy\n"
        "PolicyPack('none', policies=[ResourceValidationPolicy('p', 'd', lambda args, report: None)])\n"
    )
    project.program(PROGRAM.format(length=3))
    done = script(project, "plan", "plan", "events")
    assert done.returncode == 0, done.stderr
    return project


def test_a_plan_is_carried_out(planned: Project) -> None:
    done = script(planned, "apply", "plan")
    assert done.returncode == 0, done.stdout + done.stderr
    lengths = [r["inputs"]["length"] for r in planned.state() if r["type"].endswith("RandomString")]
    assert lengths == [3]


def test_a_plan_of_an_older_state_is_refused(planned: Project) -> None:
    planned.up(PROGRAM.format(length=4))
    done = script(planned, "apply", "plan")
    assert done.returncode == 1
    assert f"{STACK} was deployed after this plan was made" in done.stderr
    lengths = [r["inputs"]["length"] for r in planned.state() if r["type"].endswith("RandomString")]
    assert lengths == [4]


def test_a_program_that_changed_since_its_plan_is_refused(planned: Project) -> None:
    planned.program(PROGRAM.format(length=5))
    done = script(planned, "apply", "plan")
    assert done.returncode != 0
    assert "violates plan" in done.stdout + done.stderr
    assert script(planned, "apply", "plan").returncode != 0


def test_no_secret_is_in_what_becomes_an_artifact(planned: Project) -> None:
    folder = planned.directory / "plan"
    assert {file.name for file in folder.iterdir()} == {"plan.json", "state-version"}
    assert not [file for file in folder.iterdir() if CANARY in file.read_text()]


def test_two_deployments_at_once_are_refused_and_an_interrupted_one_leaves_no_lock(project: Project) -> None:
    project.program("""
        import time
        open("started", "w").write("yes")
        time.sleep(120)
    """)
    command = ["pulumi", "up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive"]
    first = subprocess.Popen(
        command,
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    started = project.directory / "program" / "started"
    while not started.exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = project.engine("up", code=None)
    assert second.code != 0
    assert "the stack is currently locked" in second.messages
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode != 0
    project.up(PROGRAM.format(length=2))
