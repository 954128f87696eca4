"""What goals' figures were before: a day and a week ago, and when the stage was last promoted to.

Nothing is kept for it: each source is asked as of then. Prometheus has it for as long as it keeps samples,
the tables for as long as they keep rows; what has none of then has no history yet, which is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilo.goals.figures import Look, Looking
from kilo.goals.measure import Figure, Measure

NONE_YET = "no history yet"
_DAY_SECONDS = 86_400.0
_PROMOTED = """
SELECT extract(epoch FROM now() - (b.entry::jsonb ->> 'at')::timestamptz)::float8
FROM fle_audit v JOIN fle_audit b
  ON b.entry::jsonb ->> 'action' = 'promotion-step' AND b.entry::jsonb ->> 'subject' = %(subject)s
 AND b.entry::jsonb #>> '{details,act}' = 'begun'
 AND b.entry::jsonb #>> '{details,promotion}' = v.entry::jsonb #>> '{details,promotion}'
WHERE v.entry::jsonb ->> 'action' = 'promotion-step' AND v.entry::jsonb ->> 'subject' = %(subject)s
  AND v.entry::jsonb #>> '{details,act}' = 'verified'
ORDER BY v.seq DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time that figures of now are shown beside.

    Attributes:
        name: in words.
        ago: seconds before now.
    """

    name: str
    ago: float


@dataclass(frozen=True, slots=True)
class Past:
    """A figure as it was at a moment."""

    moment: Moment
    figure: Figure


def moments(measure: Measure, stage: str) -> tuple[Moment, ...]:
    """A day ago, a week ago, and when the last promotion began that was verified, where there was one."""
    found = [Moment("a day ago", _DAY_SECONDS), Moment("a week ago", 7 * _DAY_SECONDS)]
    rows = measure.rows(_PROMOTED, {"subject": f"promotion/{stage}"})
    if not isinstance(rows, str) and rows and float(rows[0][0]) > 0:
        found.append(Moment("before the last promotion", float(rows[0][0])))
    return tuple(found)


def read_past(look: Look, measure: Measure, looking: Looking, at: Sequence[Moment]) -> list[Past]:
    """A goal's figure at each moment."""
    found: list[Past] = []
    for moment in at:
        earlier = measure.earlier(moment.ago)
        then = replace(
            looking,
            # The engine's state is that of now.
            state="the engine keeps no state of then",
            previews=tuple(each for each in looking.previews if each["ended_at"] <= earlier.now()),
        )
        found.append(Past(moment, look(earlier, then)))
    return found
