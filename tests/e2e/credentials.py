"""Replacing a server's passwords on a stage, as its file says it, while events go through."""

from __future__ import annotations

import json
import re

from tests.e2e.conftest import PATIENCE, Stage


def put_credentials(stage: Stage, section: str, text: str) -> None:
    """Write the ``credentials`` of ``kilo:SECTION`` into the stage's file."""
    file = stage.directory / "Pulumi.dev.yaml"
    before = file.read_text(encoding="utf-8")
    after = re.sub(
        rf"kilo:{section}: \{{( credentials: \{{[^}}]*\}},)?",
        f"kilo:{section}: {{ credentials: {text},",
        before,
    )
    assert after != before
    file.write_text(after, encoding="utf-8")


def up(stage: Stage) -> str:
    """Deploy, and what that printed."""
    done = stage.kilo("up", "--no-tour")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def replace_under_load(stage: Stage, section: str) -> None:
    """Go to generation 2 beside the former and then alone; no request and no event is lost."""
    for step, credentials in enumerate(
        ("{ generation: 2, former_accepted: true }", "{ generation: 2 }"), start=1
    ):
        put_credentials(stage, section, credentials)
        sending = stage.begin("kilo tour --json --events-only --count 400 --timeout 300")
        up(stage)
        printed, errors = sending.communicate(timeout=PATIENCE)
        assert sending.returncode == 0, errors
        total = json.loads(printed)["total"]
        assert total["acknowledged"] == total["sent"], step
        assert total["lost"] == total["altered"] == total["duplicate_deliveries"] == 0, step
        assert total["delivered_by_cdc"] > 0
