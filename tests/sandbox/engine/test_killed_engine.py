"""A killed engine: the next command finishes without a hand on the state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.engine.environment import Endpoints
from sandbox.engine.recovery import Lock
from sandbox.servers.moto import MotoServer
from tests.sandbox.support import STACK, Project

_PROGRAM = """
    one = aws.s3.Bucket("one", bucket="named-by-the-program")
    two = aws.iam.Role("two", assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
    three = aws.sqs.Queue("three")
    four = aws.kms.Key("four")
    pulumi.export("names", [one.bucket, two.name, three.name])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MotoServer]:
    """A cloud that the test can make stand still in the middle of a call."""
    moto = MotoServer(tmp_path / "aws")
    moto.start()
    yield moto
    moto.stop()


def test_the_next_update_finishes(tmp_path: Path, server: MotoServer) -> None:
    the_next_update_finishes(tmp_path, server, torn=True)


def the_next_update_finishes(tmp_path: Path, server: MotoServer, *, torn: bool) -> None:
    """Kill an engine in the midst of its creations; where nothing is torn, ``tests/engine`` does it."""
    endpoints = Endpoints(aws=server.url)
    config = {"aws:region": "eu-central-1"}
    project = Project(tmp_path / "project", endpoints, config, head="import pulumi_aws as aws")
    project.program(_PROGRAM)

    created = _kill_while_creating(project, server)
    assert list((project.layout.state / ".pulumi" / "locks").rglob("*.json")), "the lock is still there"
    if torn:
        # The kill came while the engine wrote these, which it does in place.
        for attributes in (project.layout.state / ".pulumi" / "stacks").rglob("*.attrs"):
            attributes.write_bytes(b"")

    outcome = project.up()
    assert "an update was interrupted; it is mended" in outcome.messages
    assert _pending(project) == []
    names = project.outputs()["names"]
    for name in created:
        assert name in names, "what was created before the kill is the stack's, not an orphan"
    assert project.up(None, "--expect-no-changes").steps == {}
    project.engine("destroy")


def _kill_while_creating(project: Project, server: MotoServer) -> list[str]:
    """Kill the engine while it waits for its creations; the cloud carries them out all the same.

    Answers with the names of what the cloud then has, of those that can be told by a name.
    """
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    process = subprocess.Popen(
        ["pulumi", "up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive"],
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while (
            len(pending := [op for op in _pending(project) if op["resource"]["type"].startswith("aws:")]) < 4
        ):
            assert process.poll() is None, "the update was over before it could be killed"
            time.sleep(0.01)
        # The requests are on their way once the creations are noted; a moment later they are at the cloud.
        time.sleep(1)
    finally:
        process.kill()
        process.wait()
        os.kill(server.pid, signal.SIGCONT)
    inputs = [op["resource"]["inputs"] for op in pending]
    return [name for given in inputs if (name := given.get("bucket") or given.get("name"))]


def _checkpoint(project: Project) -> dict[str, Any]:
    file = project.layout.state / ".pulumi" / "stacks" / "trial" / f"{STACK}.json"
    try:
        return json.loads(file.read_text())["checkpoint"]["latest"]
    except (OSError, ValueError):
        return {}


def _pending(project: Project) -> list[dict[str, Any]]:
    return _checkpoint(project).get("pending_operations") or []


def test_a_living_engines_lock_is_left_alone(project: Project) -> None:
    project.program("""
        import time
        open("started", "w").write("1")
        while not os.path.exists("go"):
            time.sleep(0.05)
    """)
    folder = project.directory / "program"
    first = subprocess.Popen(
        ["pulumi", "up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive"],
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (folder / "started").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = project.up(code=None)
    assert second.code != 0
    assert "currently locked" in second.messages
    (folder / "go").touch()
    output, _ = first.communicate()
    assert first.returncode == 0, output


@pytest.mark.parametrize(
    ("owner", "stale"),
    [("gone", True), ("alive", False), ("number reused", True), ("another machine", False)],
)
def test_a_lock_is_stale_only_when_its_owner_is_gone(tmp_path: Path, owner: str, stale: bool) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    import socket

    pid = ended.pid if owner == "gone" else os.getpid()
    host = "elsewhere" if owner == "another machine" else socket.gethostname()
    taken = 0.0 if owner == "number reused" else time.time()
    lock = Lock(tmp_path / "organization" / "trial" / "dev" / "1.json", pid, host, taken)
    assert lock.stack == "dev"
    assert lock.is_stale() is stale
