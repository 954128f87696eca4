"""Replacing a server's passwords on a stage, as its file says it, while events go through."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ruamel.yaml import YAML

from tests.e2e.conftest import PATIENCE, Stage


def put_credentials(stage: Stage, section: str, credentials: Mapping[str, int | bool]) -> None:
    """Write the ``credentials`` of ``kilo:SECTION`` into the stage's file."""
    file, yaml = stage.directory / "Pulumi.dev.yaml", YAML()
    document = yaml.load(file)
    document["config"][f"kilo:{section}"]["credentials"] = dict(credentials)
    yaml.dump(document, file)


def up(stage: Stage) -> str:
    """Deploy, and what that printed."""
    done = stage.kilo("up", "--no-tour")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def replace_under_load(stage: Stage, section: str) -> None:
    """Go to generation 2 beside the former and then alone; no request and no event is lost."""
    steps = ({"generation": 2, "former_accepted": True}, {"generation": 2})
    for step, credentials in enumerate(steps, start=1):
        put_credentials(stage, section, credentials)
        sending = stage.begin("kilo tour --json --events-only --count 400 --timeout 300")
        up(stage)
        printed, errors = sending.communicate(timeout=PATIENCE)
        assert sending.returncode == 0, errors
        total = json.loads(printed)["total"]
        assert total["acknowledged"] == total["sent"], step
        assert total["lost"] == total["altered"] == total["duplicate_deliveries"] == 0, step
        assert total["delivered_by_cdc"] > 0
