"""``kilo sampling``, with a real Prometheus that knows what guards did, and the collector's file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilo.errors import ExitCode
from tests.prometheus import Say, prometheus, saying

# Its last 56 bits are 0xc0…: whoever keeps a quarter keeps it.
TRACE = "4bf92f3577b34da6a3c0000000000000"


def history() -> str:
    """Ten minutes in which acme is at its ease and globex floods."""
    families: dict[str, list[str]] = {}
    now = int(time.time())
    for at in range(now - 600, now, 15):
        passed = at - now + 600
        for tenant, seen, kept, ratio in (("acme", 2, 2, 1.0), ("globex", 900, 30, 0.125)):
            labels = f'namespace="kilo",job="ingest",tenant="{tenant}"'
            families.setdefault("sampling_spans", []).append(
                f"sampling_spans_total{{{labels}}} {passed * seen} {at}"
            )
            families.setdefault("sampling_kept_spans", []).append(
                f'sampling_kept_spans_total{{{labels},reason="share"}} {passed * kept} {at}'
            )
            families.setdefault("sampling_kept_ratio", []).append(
                f"sampling_kept_ratio{{{labels}}} {ratio} {at}"
            )
        families.setdefault("sampling_guard_tripped", []).append(
            f'sampling_guard_tripped{{{labels},attribute="url.full"}} 1 {at}'
        )
    types = {"sampling_spans": "counter", "sampling_kept_spans": "counter"}
    parts = (
        f"# TYPE {name} {types.get(name, 'gauge')}\n" + "\n".join(sorted(lines))
        for name, lines in families.items()
    )
    return "\n".join(parts) + "\n# EOF\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), history=history()) as found:
        yield found


@pytest.fixture
def say(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run ``kilo sampling ARGUMENTS``: its exit code, output and error output."""
    monkeypatch.setenv("KILO_TRACES", str(tmp_path / "*.jsonl"))
    return saying("sampling", url, tmp_path, monkeypatch, capsys)


def test_show_says_who_is_over_and_for_what(say: Say) -> None:
    code, output, _ = say("show", "--json")
    found = {each["tenant"]: each for each in json.loads(output)}
    assert code == ExitCode.OK
    assert next(iter(found)) == "globex"
    assert found["globex"]["because"] == "url.full"
    assert found["globex"]["seen"] == pytest.approx(900, rel=0.05)
    assert (found["acme"]["because"], found["acme"]["kept_ratio"]) == (None, 1.0)
    assert found["initech"]["kept_ratio"] is None
    table = say("show")[1]
    assert max(map(len, table.splitlines())) <= 80
    assert "url.full" in table


def test_a_trace_is_explained_from_the_share_at_the_time(say: Say) -> None:
    dropped = json.loads(say("explain", TRACE, "--tenant", "globex", "--json")[1])
    assert dropped["passes"] == pytest.approx(0.25)
    assert [(each["service"], each["kept"]) for each in dropped["verdicts"]] == [("ingest", False)]
    unknown = json.loads(say("explain", f"00-{TRACE}-00f067aa0ba902b7-01", "--tenant", "acme", "--json")[1])
    assert [each["kept"] for each in unknown["verdicts"]] == [None]
    text = say("explain", TRACE, "--tenant", "globex")[1]
    assert "needs 25.0%" in " ".join(text.split())
    assert "nothing is known" in say("explain", TRACE, "--tenant", "acme", "--at", "2020-01-01T00:00:00")[1]


def test_a_span_that_was_kept_is_evidence(say: Say, tmp_path: Path) -> None:
    span = {
        "traceId": TRACE,
        "spanId": "00f067aa0ba902b7",
        "name": "POST /v1/events",
        "startTimeUnixNano": str((int(time.time()) - 60) * 10**9),
        "endTimeUnixNano": str((int(time.time()) - 58) * 10**9),
        "traceState": "ot=th:0",
        "attributes": [
            {"key": "kilo.tenant", "value": {"stringValue": "globex"}},
            {"key": "kilo.sampling", "value": {"stringValue": "slow"}},
        ],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "ingest"}}]}
    line = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    (tmp_path / "traces.jsonl").write_text(json.dumps(line), encoding="utf-8")
    found = json.loads(say("explain", TRACE, "--json")[1])
    assert found["tenant"] == "globex"
    assert [(each["kept"], each["why"]) for each in found["verdicts"]] == [
        (True, "kept whole since it was slow")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "4BF9"), "must be a trace id of 32"),
        (("explain", TRACE), "--tenant: no span of the trace is here"),
        (("explain", TRACE, "--tenant", "nobody"), "--tenant nobody: no such tenant"),
        (("allow", "x", "-s", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_said_in_a_line(say: Say, arguments: tuple[str, ...], said: str) -> None:
    code, _, errors = say(*arguments)
    assert code == ExitCode.BAD_INPUT
    assert said in errors
    assert "Traceback" not in errors
