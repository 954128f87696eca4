"""Ramps on a whole stage: the real engine, the real gateway, the stage's own Prometheus and database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE, Stage

pytestmark = pytest.mark.timeout(4 * PATIENCE)

FILE = "Pulumi.dev.yaml"


@pytest.fixture(scope="module", autouse=True)
def _up(stage: Stage) -> None:
    done = stage.kilo("up", "--no-tour")
    assert done.returncode == 0, done.stderr


def history(stage: Stage, tenant: str) -> list[dict[str, Any]]:
    done = stage.kilo("traffic", "history", tenant, "rehearsal", "-s", "dev", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_tour_leads_one_ramp_to_the_end_and_takes_the_other_back(stage: Stage) -> None:
    file, outputs = (stage.directory / FILE).read_text(), stage.pulumi("stack", "output", "--json").stdout

    done = stage.kilo("traffic", "tour", "-s", "dev", "--json")

    assert done.returncode == 0, done.stderr
    last = {line["tenant"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {name: (line["state"], line["weight"]) for name, line in last.items()} == {
        "acme": ("done", 100),
        "globex": ("reverted", 0),
    }
    assert "failing" in last["globex"]["reason"]
    acts = [(step["act"], step["weight_to"]) for step in reversed(history(stage, "acme"))]
    assert acts[-6:] == [
        ("step", "50"),
        ("step", "100"),
        ("done", "100"),
        ("started", "100"),
        ("reverting", "100"),
        ("revert", "0"),
    ]
    assert all(step["seconds"] is not None for step in history(stage, "globex") if step["act"] == "revert")
    # What was targeted alone has changed alone, and the file is what it was.
    assert (stage.directory / FILE).read_text() == file
    assert stage.pulumi("stack", "output", "--json").stdout == outputs
    unchanged = stage.pulumi("preview", "--stack", "dev", "--expect-no-changes")
    assert unchanged.returncode == 0, unchanged.stdout


def test_what_others_wrote_does_not_ride_along(stage: Stage) -> None:
    file = stage.directory / FILE
    before = file.read_text()
    file.write_text(before.replace("timeout_ms: 3000", "timeout_ms: 2999"))
    try:
        begun = stage.kilo("traffic", "ramp", "acme", "rehearsal", "-s", "dev", "--detach", "--steps", "5")
        assert begun.returncode == 0, begun.stderr
        done = stage.kilo("traffic", "ramp", "-s", "dev", "--continue", "--once", "--json")
        assert done.returncode == 0, done.stderr
        (line,) = map(json.loads, done.stdout.splitlines())
        assert (line["weight"], line["pending"]) == (0, 5)
        assert "routes.json would change for others than acme" in line["reason"]
    finally:
        file.write_text(before)
        assert stage.kilo("traffic", "revert", "acme", "rehearsal", "-s", "dev").returncode == 0
