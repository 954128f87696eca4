"""What a command on ramps works with: the stage's file, database, engine, Prometheus and gateways."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from infra.check import stage_file
from infra.ramps.run import Replicas, Setting
from infra.ramps.stage_file import RampFile
from kilo.contract import load_outputs
from kilo.environment import OUTPUTS_VARIABLE, database_url
from kilo.errors import KiloError
from kilo.project import find_project
from kilo.traffic.ramps.counted import Counted
from kilo.traffic.ramps.engine import PulumiEngine


def make_setting(stage: str, prometheus: str | None = None, gateways: Sequence[str] = ()) -> Setting:
    """All of it for ``stage``; addresses in ``prometheus`` and ``gateways`` go before the stage's own."""
    project = find_project()
    file = RampFile(stage_file(project, stage))
    metrics = Counted(
        prometheus or _prometheus_of_sandbox(stage) or file.settings.monitoring.prometheus_url,
        namespace=file.settings.namespace,
    )
    return Setting(
        url=database_url(),
        file=file,
        engine=PulumiEngine(stage, project),
        prometheus=metrics,
        gateways=Replicas(metrics, gateways),
        who=os.environ.get("GITHUB_ACTOR") or getpass.getuser(),
        program=program_of(project),
    )


def _prometheus_of_sandbox(stage: str) -> str | None:
    """Where the outputs that lie on this machine say that the stage's Prometheus is."""
    if OUTPUTS_VARIABLE not in os.environ:
        return None
    try:
        outputs = load_outputs()
    except KiloError:
        return None
    return outputs.monitoring.prometheus_url if outputs.stage == stage else None


def program_of(project: Path) -> str:
    """The version of what does it, and the commit where there is one."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=project, capture_output=True, text=True, check=False
    )
    return f"kilo {version('kilo')}{f' {found.stdout.strip()}' if found.returncode == 0 else ''}"
