"""What is looked at of a stage after a promotion to it: its row of the table, since it was carried out.

What is known to be bad ends the promotion at once. What is missing, stale or measured by a wrong clock is
waited for until some time after the soak, and is bad then: nothing passes because nobody could look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kilo.errors import CheckFailed
from kilo.goals.figures import Looking
from kilo.goals.measure import SKEW_SECONDS, Bound, Figure, Measure, Query, Verdict
from kilo.observe import metrics
from kilo.promotion.conductor import Look
from kilo.promotion.gates import PAGES, Check, GateSettings, check_row, said, step_of, watched
from kilo.promotion.plan import images_in

_PATIENCE_SECONDS = 180.0
"""How long after the soak a figure is waited for: scrapes, records and alerts that end."""
_LATE = ("watched", "pages now")
"""Checks that may fail until the soak is over: they tell of what came before, too."""


def look_at(  # noqa: PLR0917
    measure: Measure,
    looking: Looking,
    settings: GateSettings,
    since: float,
    soak_seconds: float,
    images: Sequence[str],
) -> Look:
    """The verdict on a stage that was changed at ``since``.

    Args:
        measure: of the stage.
        looking: at the stage; its window is not heeded.
        settings: bounds, as the stage asks for them.
        since: seconds since the epoch.
        soak_seconds: for how long it must be good.
        images: what must run there.

    Raises:
        CheckFailed: by this machine's clock the change is still to come, so that no time can be measured.
    """
    now = measure.now()
    if since - now > SKEW_SECONDS:
        msg = (
            f"the promotion was carried out {since - now:.0f} s in the future: a clock is wrong; set it right"
        )
        raise CheckFailed(msg)
    window = max(now - since, 1.0)
    checks = _checks(measure, looking, settings, since, window, images)
    figures = [each.document() for each in checks]
    bad = [
        each for each in checks if each.bound.judge(each.figure) is Verdict.MISSED and each.name not in _LATE
    ]
    open_ = [each for each in checks if not each.passed]
    if bad:
        return Look("failed", figures, _why(bad))
    if window < soak_seconds:
        return Look("waiting", figures, f"{window:.0f} of {soak_seconds:.0f} s")
    if not open_:
        return Look("good", figures, f"good for {window:.0f} s")
    late = window > soak_seconds + _PATIENCE_SECONDS
    return Look("failed" if late else "waiting", figures, _why(open_))


def _checks(  # noqa: PLR0917
    measure: Measure,
    looking: Looking,
    settings: GateSettings,
    since: float,
    window: float,
    images: Sequence[str],
) -> list[Check]:
    span = f"[{math.ceil(window)}s:{step_of(window)}s]"
    # A page of before, such as one for the worker that was off, is none of the promotion's.
    new = f"count(max_over_time(({PAGES}){span}) unless ({PAGES} @ {math.floor(since)}))"
    rests_on = (metrics.OUTBOX_ROWS_WAITING.name,)
    checks = [
        _images(looking.state, images),
        Check(
            "new pages",
            new,
            "Prometheus",
            said(window),
            Bound("==", 0),
            measure.query(Query(new, rests_on, 0.0)),
        ),
        Check(
            "pages now",
            f"count({PAGES})",
            "Prometheus",
            "now",
            Bound("==", 0),
            measure.query(Query(f"count({PAGES})", rests_on, 0.0)),
        ),
        watched(measure, window),
    ]
    looking = replace(looking, window_seconds=math.ceil(window), grace_seconds=min(60, math.ceil(window / 4)))
    return [*checks, *check_row(measure, looking, window, settings)]


def _images(state: Mapping[str, Any] | str, images: Sequence[str]) -> Check:
    figure = Figure.unknown(state) if isinstance(state, str) else _absent(state, images)
    return Check(
        "images", "promoted images that do not run", "the stack's state", "now", Bound("==", 0), figure
    )


def _absent(state: Mapping[str, Any], images: Sequence[str]) -> Figure:
    running = {
        image
        for resource in state["deployment"].get("resources") or ()
        if not resource.get("delete")
        for image in images_in(resource.get("inputs") or {})
    }
    absent = [each for each in images if each not in running]
    return Figure(float(len(absent)), None, "", {"because": absent} if absent else {})


def _why(checks: Sequence[Check]) -> str:
    return "; ".join(
        f"{each.name}: {each.figure.trouble or f'{each.bound.show(each.figure.value)}, not {each.bound}'}"
        for each in checks
    )
