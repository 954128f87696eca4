"""docs/runbooks/README.md on a cluster: its lines for kubectl, typed as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kilo.callers import ROLES_OF_COMMANDS
from tests.node.bring_up import ROOT
from tests.node.programs import node_programs
from tests.node.stage import StageOnNode

pytestmark = pytest.mark.timeout(1800)

README = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
ASKED = {
    "outbox": "outbox status",
    "dlq": "dlq list",
    "consumer refill": "consumer refill --consumer projection",
}
"""Of each row, a command that a page has."""


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def typed(stage: StageOnNode, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of it, whose kubeconfig leads to the node."""
    programs = os.pathsep.join((str(node_programs()), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "KUBECONFIG": str(stage.node.kubeconfig), "PATH": programs, **more}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=stage.home.project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_works_with_the_url_of_its_roles_secret(stage: StageOnNode, tmp_path: Path) -> None:
    line = next(re.finditer(r"^export DATABASE_URL=.*kubectl.*$", README, re.MULTILINE))[0]
    outputs = tmp_path / "outputs.json"
    found = stage.node.get("/api/v1/namespaces/kilo/configmaps/kilo-outputs")
    outputs.write_text(found["data"]["outputs.json"])
    done = typed(stage, f"{line}\nkilo outbox status --json", KILO_OUTPUTS=str(outputs))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    (told,) = re.findall(r"get secret database-([a-z]+)", line)
    assert ROLES_OF_COMMANDS["outbox"] == told


@pytest.mark.parametrize("command", ASKED)
def test_a_pod_that_has_all_of_it_does_a_command(stage: StageOnNode, command: str) -> None:
    rows = dict(re.findall(r"^\| `([a-z ]+) …` \| `(kubectl exec .*?)`", README, re.MULTILINE))
    assert rows.keys() == ASKED.keys()
    done = typed(stage, rows[command].replace(f"{command} …", ASKED[command]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_by_hand_is_made_followed_and_taken_away(stage: StageOnNode) -> None:
    (block,) = re.findall(r"```\n(kubectl create job .*?)```", section("Jobs by hand"), re.DOTALL)
    done = typed(stage, block)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backup" in done.stdout
    jobs = {each["metadata"]["name"] for each in stage.objects("apis/batch/v1/jobs")}
    assert "backup-by-hand" not in jobs
