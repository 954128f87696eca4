"""The collector's files: whole, torn, hostile; and spans beside what the tables know."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kilo.observe.collected import read_spans
from kilo.observe.trace import Step, with_spans

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"


def attribute(key: str, text: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": text}}


def span(name: str, trace: str = TRACE, start: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": "00f067aa0ba902b7",
        "name": name,
        "startTimeUnixNano": str(start * 10**9),
        "endTimeUnixNano": str(start * 10**9 + 2_500_000),
        **more,
    }


def line(*spans: dict[str, Any], service: str = "kilo-ingest") -> str:
    resource = {"attributes": [attribute("service.name", service)]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}) + "\n"


def written(folder: Path, *lines: str, name: str = "traces.jsonl") -> str:
    (folder / name).write_text("".join(lines), encoding="utf-8")
    return str(folder / "traces*.jsonl")


def test_spans_of_a_trace_are_found_in_all_files_by_time(tmp_path: Path) -> None:
    written(tmp_path, line(span("late", start=9), span("other", OTHER)), name="traces-2026.jsonl")
    pattern = written(tmp_path, line(span("early"), service="kilo-consumer"))
    found = read_spans([TRACE], pattern)
    assert [(each.service, each.name) for each in found] == [
        ("kilo-consumer", "early"),
        ("kilo-ingest", "late"),
    ]
    assert found[0].seconds == pytest.approx(0.0025)


def test_a_span_says_why_it_was_kept_and_what_it_stands_for(tmp_path: Path) -> None:
    kept = span("kept", traceState="vendor=1,ot=th:8;rv:aaaaaaaaaaaaaa", status={"code": 2})
    certain = span("slow", traceState="ot=th:0", attributes=[attribute("kilo.sampling", "slow")])
    found = read_spans([TRACE], written(tmp_path, line(kept, certain, span("unknown"))))
    assert [(each.weight, each.reason, each.failed) for each in found] == [
        (2.0, "", True),
        (1.0, "slow", False),
        (None, "", False),
    ]


def test_torn_and_wrong_lines_are_left_out(tmp_path: Path) -> None:
    whole = line(span("whole"))
    wrong = [f'{{"resourceSpans": [{TRACE}]}}\n', f'"{TRACE}"\n', line({"traceId": TRACE}), f"\xff{TRACE}\n"]
    found = read_spans([TRACE], written(tmp_path, *wrong, whole, whole[: len(whole) // 2 + 40]))
    assert [each.name for each in found] == ["whole"]


def test_nothing_of_a_span_steers_the_terminal(tmp_path: Path) -> None:
    (found,) = read_spans([TRACE], written(tmp_path, line(span("\x1b]0;gone\x07" + "n" * 500))))
    assert found.name.isprintable()
    assert len(found.name) <= 210


def test_no_files_are_no_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KILO_TRACES", raising=False)
    assert read_spans([TRACE]) == []
    assert read_spans([TRACE], str(tmp_path / "*.jsonl")) == []


def test_spans_stand_between_the_steps_of_their_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, line(span("POST /v1/events", start=1), span("other", OTHER, start=1)))
    monkeypatch.setenv("KILO_TRACES", files)
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    steps = [
        Step(datetime.fromtimestamp(at, UTC), where, "written", "", parent if where == "outbox" else None)
        for at, where in ((0.5, "ingest"), (1.5, "outbox"))
    ]
    told = with_spans(steps)
    assert [(step.where, step.what) for step in told] == [
        ("ingest", "written"),
        ("kilo-ingest", "span POST /v1/events"),
        ("outbox", "written"),
    ]
    assert told[1].details == "2.5 ms"
