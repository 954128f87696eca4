"""The scripts of the workflows, on the real engine: only a fresh plan is carried out, and nothing but it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import boto3
import pytest

from kilo.changes.preview import parse_events
from sandbox.engine.environment import Endpoints
from sandbox.servers.moto import MotoServer
from tests.goldens.rendering import comment, every_text
from tests.sandbox.support import STACK, Project

SCRIPTS = Path(__file__).parents[2] / ".ci"
CANARY = "canary-correct-horse"
OWN = pwd.getpwuid(os.getuid()).pw_name
PROGRAM = """
    import pulumi_random as random
    secret = pulumi.Config().require_secret("word")
    random.RandomString("one", keepers={{"word": secret}}, length={length})
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a stack that is deployed, to be copied."""
    project = Project(tmp_path_factory.mktemp("deployed"), Endpoints())
    project.run("config", "set", "--stack", STACK, "--secret", "word", CANARY)
    project.up(PROGRAM.format(length=2))
    return project.directory


@pytest.fixture
def project(tmp_path: Path, deployed: Path) -> Project:
    return Project(tmp_path / "project", Endpoints(), blank=deployed)


def script(project: Project, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    shims, _, rest = project.environment["PATH"].partition(os.pathsep)
    # As the workflows have it: the engine's, then the project's own Python.
    path = os.pathsep.join([shims, str(Path(sys.executable).parent), rest])
    return subprocess.run(
        [str(SCRIPTS / name), STACK, *arguments],
        cwd=project.directory,
        env={**project.environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def write_policies(project: Project, check: str) -> Path:
    pack = project.directory / "infra" / "policy"
    pack.mkdir(parents=True)
    (pack / "PulumiPolicy.yaml").write_text("description: trial\nruntime: python\n")
    (pack / "__main__.py").write_text(
        "from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy\n"
        f"policy = ResourceValidationPolicy('p', 'd', lambda args, report: {check})\n"
        "PolicyPack('trial', policies=[policy], enforcement_level=EnforcementLevel.MANDATORY)\n"
    )
    return pack


@pytest.fixture(scope="module")
def plan_of_it(tmp_path_factory: pytest.TempPathFactory, deployed: Path) -> Path:
    """The same with a plan of a change."""
    project = Project(tmp_path_factory.mktemp("planned"), Endpoints(), blank=deployed)
    # The trial project has no policies of its own: the scripts' own pack would check nothing of it.
    write_policies(project, "None")
    project.program(PROGRAM.format(length=3))
    done = script(project, "plan", "plan", "events")
    assert done.returncode == 0, done.stderr
    return project.directory


@pytest.fixture
def planned(tmp_path: Path, plan_of_it: Path) -> Project:
    return Project(tmp_path / "planned", Endpoints(), blank=plan_of_it)


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
    first.communicate()
    assert first.returncode != 0
    project.up(PROGRAM.format(length=2))


def locked_by(project: Project, user: str, since: str = "2026-01-01T00:00:00Z") -> Path:
    folder = project.layout.state / ".pulumi" / "locks" / "organization" / "trial" / STACK
    folder.mkdir(parents=True, exist_ok=True)
    lock = {"pid": 1, "username": user, "hostname": "lost-runner", "timestamp": since}
    (folder / "0.json").write_text(json.dumps(lock))
    return folder / "0.json"


def unlocked(project: Project, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return script(project, "unlock")


def test_the_lock_of_a_lost_runner_needs_no_hand(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = locked_by(project, OWN)
    assert "the stack is currently locked" in project.up(code=None).messages
    done = unlocked(project, monkeypatch)
    assert done.returncode == 0, done.stderr
    assert "it is taken away" in done.stdout
    assert not lock.exists()
    project.up()


def test_a_lock_that_a_ramps_step_may_hold_is_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ramps.yml runs the engine beside a deployment, under the same account."""
    lock = locked_by(project, OWN, datetime.now(UTC).isoformat())
    ends = Timer(5, lock.unlink)
    ends.start()
    done = unlocked(project, monkeypatch)
    ends.join()
    assert done.returncode == 0, done.stderr
    assert "waiting, a ramp's step may hold it" in done.stdout
    assert "taken away" not in done.stdout
    # One that nobody takes along is taken away when no step takes as long.
    lock = locked_by(project, OWN, (datetime.now(UTC) - timedelta(minutes=9, seconds=56)).isoformat())
    done = unlocked(project, monkeypatch)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("waiting") < done.stdout.index("taken away")
    assert not lock.exists()


def test_the_lock_of_somebody_else_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = locked_by(project, "somebody")
    done = unlocked(project, monkeypatch)
    assert done.returncode == 0, done.stderr
    assert "somebody@lost-runner" in done.stdout
    assert lock.exists()


def test_locks_are_taken_away_by_the_workflow_alone(project: Project) -> None:
    lock = locked_by(project, OWN)
    done = script(project, "unlock")
    assert done.returncode == 1
    assert "pulumi cancel" in done.stderr
    assert lock.exists()


def test_a_killed_preview_leaves_no_lock(project: Project) -> None:
    project.program("""
        import time
        open("started", "w").write("yes")
        time.sleep(120)
    """)
    command = ["pulumi", "preview", "--stack", STACK, "--non-interactive"]
    preview = subprocess.Popen(
        command,
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = project.directory / "program" / "started"
    while not started.exists():
        assert preview.poll() is None
        time.sleep(0.02)
    os.killpg(preview.pid, signal.SIGKILL)
    preview.wait()
    assert not list((project.layout.state / ".pulumi" / "locks").rglob("*.json"))
    project.up(PROGRAM.format(length=2))


def test_a_bucket_is_looked_through_for_locks_too(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prefix = f"states/.pulumi/locks/organization/trial/{STACK}"
    server = MotoServer(tmp_path / "aws")
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client: Any = boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        client.create_bucket(Bucket="state")
        for name, user in (("0", OWN), ("1", "somebody")):
            lock = {"username": user, "hostname": "lost-runner", "timestamp": "2026-01-01T00:00:00Z"}
            client.put_object(Bucket="state", Key=f"{prefix}/{name}.json", Body=json.dumps(lock))
        project.variables["PULUMI_BACKEND_URL"] = "s3://state/states?region=us-east-1"
        done = unlocked(project, monkeypatch)
        left = [item["Key"] for item in client.list_objects_v2(Bucket="state")["Contents"]]
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    assert left == [f"{prefix}/1.json"]


def test_the_engine_by_itself_is_held_to_the_policies_by_one_variable(project: Project) -> None:
    pack = write_policies(project, "report('the canary rule')")
    command = [project.pulumi, "preview", "--stack", STACK, "--non-interactive"]

    def preview(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=project.directory,
            env={**project.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    assert preview().returncode == 0
    held = preview(PULUMI_OPTION_POLICY_PACK=str(pack))
    assert held.returncode != 0
    assert "the canary rule" in held.stdout


def test_a_secret_that_changes_shows_as_changed_and_not_as_what(planned: Project) -> None:
    planned.run("config", "set", "--stack", STACK, "--secret", "word", f"{CANARY}-next")
    done = script(planned, "plan", "plan", "events")
    assert done.returncode == 0, done.stderr
    events = (planned.directory / "events").read_text()
    found = parse_events(events)
    assert "keepers" in comment(found)
    assert not [text for text in [*every_text(found), done.stdout, done.stderr] if CANARY in text]
    assert not [file for file in (planned.directory / "plan").iterdir() if CANARY in file.read_text()]
    # The engine's events themselves stay on the machine: only their owner reads them.
    assert (planned.directory / "events").stat().st_mode & 0o077 == 0
