"""``kilo alerts``, with a real Prometheus that has something to say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kilo.errors import ExitCode
from kilo.observe.prometheus import Prometheus
from tests.patience import until
from tests.prometheus import Say, prometheus, saying

NAMESPACE = "kilo"


def alert(name: str, severity: str, expr: str = "vector(1)", **more: Any) -> dict[str, Any]:
    labels = {"namespace": NAMESPACE, "stage": "dev", "severity": severity, **more.pop("labels", {})}
    notes = {"summary": f"{name} it is", "runbook_url": f"docs/runbooks/{name}.md"}
    return {"alert": name, "expr": expr, "labels": labels, "annotations": notes, **more}


RULES = [
    alert("TenantThrottled", "ticket", labels={"tenant": "acme"}),
    alert("CdcConnectorDown", "page", labels={"slot": "outbox"}),
    alert("OutboxLag", "page", **{"for": "1h"}),
    alert("GatewayDown", "page", expr="vector(1) > 1"),
    alert("OutboxEventsLost", "page", labels={"namespace": "elsewhere"}),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    rules = {"groups": [{"name": "all", "rules": RULES}]}
    with prometheus(tmp_path_factory.mktemp("prometheus"), rules=rules) as found:
        with Prometheus(found) as client:
            until(lambda: len(client.get("alerts")["alerts"]) == 4)
        yield found


@pytest.fixture
def say(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run ``kilo alerts ARGUMENTS``: its exit code, output and error output."""
    return saying("alerts", url, tmp_path, monkeypatch, capsys)


def test_what_fires_in_the_stage_is_shown_with_its_runbook(say: Say) -> None:
    code, output, _ = say()
    assert code == ExitCode.OK
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"CdcConnectorDown +- +slot=outbox +\d+ s +docs/runbooks/CdcConnecto", output)
    assert "TenantThrottled" in output
    assert not re.search("OutboxLag|GatewayDown|OutboxEventsLost", output)


def test_json_names_tenant_since_and_runbook_pages_first(say: Say) -> None:
    code, output, _ = say("--json", "--pending")
    found = json.loads(output)
    assert code == ExitCode.OK
    assert [each["name"] for each in found] == ["CdcConnectorDown", "TenantThrottled", "OutboxLag"]
    assert (found[1]["tenant"], found[1]["runbook"]) == ("acme", "docs/runbooks/TenantThrottled.md")
    assert [each["state"] for each in found] == ["firing", "firing", "pending"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found[0]["since"])


def test_a_tenant_sees_its_own_alone(say: Say) -> None:
    assert "TenantThrottled" in say("--tenant", "acme")[1]
    assert say("--tenant", "globex")[1] == "nothing fires\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-s", "prod"), "--stage prod: the outputs here are of test"),
        (("--tenant", "nobody"), "--tenant nobody: no such tenant; tenants: acme"),
    ],
)
def test_another_stage_and_an_unknown_tenant_are_refused(
    say: Say, arguments: tuple[str, ...], said: str
) -> None:
    code, _, errors = say(*arguments)
    assert code == ExitCode.BAD_INPUT
    assert said in errors.replace("\n", " ")
