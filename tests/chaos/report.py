"""A run as a page for people and as JSON for scripts."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from tests.chaos.load import Sample
from tests.chaos.run import Run

_WIDTH, _HEIGHT, _LEFT, _BELOW = 960, 200, 60, 24

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
.holds, .broken { padding: .6em 1em; border-radius: 6px; font-weight: 600 }
.holds { background: #e3f4e6; color: #14532d } .broken { background: #fde4e4; color: #7f1d1d }
table { border-collapse: collapse } td, th { padding: .2em 1.2em .2em 0; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums } svg { display: block } text { font-size: 11px }
"""


def write_report(run: Run, directory: Path) -> Path:
    """Write ``report.html`` and ``report.json`` into ``directory``; returns the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(_as_json(run), indent=2) + "\n", encoding="utf-8")
    page = directory / "report.html"
    page.write_text(_page(run), encoding="utf-8")
    return page


def _as_json(run: Run) -> dict[str, object]:
    return {
        "bus": run.bus,
        "seconds": round(run.seconds, 1),
        "settle_seconds": round(run.settle_seconds, 1),
        "holds": run.outcome.holds,
        **asdict(run.outcome),
        "failed_tries": sum(writer.failed_tries for writer in run.load.writers),
        "faults": dict(sorted(run.faults.counts.items())),
        "restarts": dict(sorted(run.faults.restarts.items())),
        "fault_times": [[round(at, 1), name] for at, name in run.faults.times],
        "samples": [asdict(sample) for sample in run.load.samples],
    }


def _page(run: Run) -> str:
    outcome, samples = run.outcome, run.load.samples
    verdict = (
        "Nothing lost, one effect each, order kept."
        if outcome.holds
        else "Broken: see the counts that are not 0."
    )
    counts = [
        ("events acknowledged", outcome.acknowledged),
        ("effects", outcome.effects),
        ("lost", outcome.lost),
        ("with more than one effect", outcome.doubled),
        ("effects out of order in their aggregate", outcome.out_of_order),
        ("effects of events that were never acknowledged", outcome.unexpected),
        ("open dead letters", outcome.parked),
        ("deliveries that the inbox dropped as duplicates", outcome.duplicates_suppressed),
        ("events that the reconciler published again", outcome.republished),
        ("requests that failed and were sent again", sum(w.failed_tries for w in run.load.writers)),
        *((f"by {publisher}", count) for publisher, count in outcome.by_publisher.items()),
    ]
    latencies = "".join(
        f"<tr><td>{publisher}<td class=n>{p50:.3f} s<td class=n>{p99:.3f} s<td class=n>{most:.3f} s"
        for publisher, (p50, p99, most) in outcome.latency_seconds.items()
    )
    plots = [
        (
            "Events acknowledged (blue) and effects (orange) a second",
            _rates(samples, lambda each: each.acknowledged),
            _rates(samples, lambda each: each.effects),
        ),
        ("Rows waiting", _line(samples, lambda each: each.waiting), None),
        ("Age of the oldest waiting row, seconds", _line(samples, lambda each: each.oldest_seconds), None),
    ]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Soak over {run.bus}</title>
<style>{_STYLE}</style>
<h1>Soak over {run.bus}: {run.seconds / 60:.1f} minutes</h1>
<p class="{"holds" if outcome.holds else "broken"}">{verdict}</p>
<p>{sum(run.faults.counts.values())} faults while {run.load.ordering_keys} writers sent events; all was
settled {run.settle_seconds:.0f} s after the last.</p>
<h2>Counts</h2><table>{_rows(counts)}</table>
<h2>From an event's creation to its effect, faults included</h2>
<table><tr><th><th>p50<th>p99<th>most{latencies}</table>
{"".join(f"<h2>{title}</h2>{_plot(run, first, second)}" for title, first, second in plots)}
<p>Grey lines are faults; gaps are moments in which the database did not answer.</p>
<h2>Faults</h2><table>{_rows(sorted(run.faults.counts.items()))}</table>
<h2>What ended by itself and was started again</h2>
<table>{_rows(sorted(run.faults.restarts.items())) or "<tr><td>nothing"}</table>
</html>
"""


def _rows(pairs: Sequence[tuple[str, int]]) -> str:
    return "".join(f"<tr><td>{html.escape(name)}<td class=n>{count:,}" for name, count in pairs)


_Points = list[tuple[float, float | None]]


def _line(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> _Points:
    return [(sample.seconds, value(sample)) for sample in samples]


def _rates(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> _Points:
    points: _Points = []
    for before, after in pairwise(samples):
        first, second = value(before), value(after)
        rate = None
        if first is not None and second is not None:
            rate = (second - first) / (after.seconds - before.seconds)
        points.append((after.seconds, rate))
    return points


def _plot(run: Run, first: _Points, second: _Points | None) -> str:
    shown = [first, *([second] if second else [])]
    longest = max((at for points in shown for at, _ in points), default=1.0)
    highest = max((value for points in shown for _, value in points if value is not None), default=1.0) or 1.0

    def x(at: float) -> float:
        return _LEFT + at / longest * (_WIDTH - _LEFT)

    def y(value: float) -> float:
        return _HEIGHT - value / highest * (_HEIGHT - 10)

    marks = "".join(
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{_HEIGHT}" stroke="#ddd">'
        f"<title>{html.escape(name)}</title></line>"
        for at, name in run.faults.times
    )
    lines = "".join(
        f'<path d="{_path(points, x, y)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for points, colour in zip(shown, ("#1d4ed8", "#ea580c"), strict=False)
    )
    axis = "".join(
        f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>'
        for value in (0.0, highest / 2, highest)
    )
    times = "".join(
        f'<text x="{x(at):.1f}" y="{_HEIGHT + 16}" text-anchor="end">{at:.0f} s</text>'
        for at in (longest / 4, longest / 2, longest * 3 / 4, longest)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" width="100%">{marks}{lines}'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#888"/>{axis}{times}</svg>'
    )


def _path(points: _Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    parts: list[str] = []
    pen = "M"
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{x(at):.1f},{y(value):.1f}")
        pen = "L"
    return "".join(parts)
