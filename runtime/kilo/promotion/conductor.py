"""Leads a promotion, a roll-back or a rehearsal from where its record says it stands to its end.

Each step does what may be done again, then notes it: whatever instant a process is killed at, the next one
finds the phase that was noted last and does that phase's work anew.

==============  ===========================================================================================
phase           what is done in it
==============  ===========================================================================================
begun           the file is written and carried out; an engine that fails half way begins the roll-back
deployed        the stage is looked at until it was good for its soak; what is bad begins the roll-back
stepping        weights go to their next step, which is carried out and looked at as the first was
rolling-back    the file is written and carried out, keys go back
rehearsing      the row's roll-back is carried out, and held under load
off             what there was before is carried out, and every event is waited for
==============  ===========================================================================================

Everything that it touches is a port, so that it is tried without an engine, a database or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kilo.engine import HalfDeployed
from kilo.promotion.record import Change, Course, Phase, Value

_PAUSE_SECONDS = 2.0
_FORWARD = (Phase.BEGUN, Phase.STEPPING)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a stage found.

    Attributes:
        verdict: ``failed`` is known to be bad, or could not be known until the soak's end.
        figures: the checks, as documents.
        reason: in words.
    """

    verdict: Literal["waiting", "good", "failed"]
    figures: Sequence[Mapping[str, Any]] = ()
    reason: str = ""


class Ports(Protocol):
    """What a conductor acts through."""

    def write(self, wanted: Mapping[str, Value]) -> None:
        """Make the stage's file say that."""
        ...

    def deploy(self) -> Mapping[str, Any]:
        """Carry the file out; what was done, for the record.

        Raises:
            NotDeployed: nothing was; it is done again when somebody runs the command again.
            HalfDeployed: the engine failed on the way.
        """
        ...

    def look(self, course: Course) -> Look:
        """Look at what was promoted."""
        ...

    def row_off(self, course: Course) -> tuple[Change, ...]:
        """What the roll-back of ``course`` changes."""
        ...

    def rekey_back(self) -> None:
        """See to it that no rotation of keys is left half done.

        Raises:
            CheckFailed: people must sign for that first; it names the command.
        """
        ...

    def rehearse(self, phase: Phase) -> Mapping[str, Any]:
        """What is looked at of a rehearsal once a phase's file is in force.

        Raises:
            CheckFailed: an event was lost.
        """
        ...

    def note(self, course: Course, phase: Phase, details: Mapping[str, Any]) -> Course:
        """Record a step; where that leaves the course."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait."""
        ...


def conduct(course: Course, ports: Ports, shown: Callable[[Course, Look | None], None]) -> Course:
    """Lead ``course`` to its end.

    Args:
        course: as it was recorded.
        ports: what it acts through.
        shown: called with each phase that is reached, and with each look.

    Raises:
        NotDeployed, CheckFailed: it stays where it stands, and is taken up again by the next call.
    """
    shown(course, None)
    while not course.phase.ended:
        before = course
        course = _step(course, ports, shown)
        if course is not before:
            shown(course, None)
    return course


def _step(course: Course, ports: Ports, shown: Callable[[Course, Look | None], None]) -> Course:
    if course.phase is Phase.DEPLOYED:
        return _look(course, ports, shown)
    ports.write(course.wanted)
    try:
        done = ports.deploy()
    except HalfDeployed as error:
        if course.phase not in _FORWARD:
            raise
        return _roll_back(course, ports, {"reason": str(error)})
    if course.phase in _FORWARD:
        return ports.note(course, Phase.DEPLOYED, done)
    if course.phase is Phase.ROLLING_BACK:
        ports.rekey_back()
        return ports.note(course, Phase.ROLLED_BACK, {**done, "reason": course.reason})
    found = ports.rehearse(course.phase)
    ahead = Phase.OFF if course.phase is Phase.REHEARSING else Phase.RETURNED
    return ports.note(course, ahead, {**done, "figures": [found]})


def _look(course: Course, ports: Ports, shown: Callable[[Course, Look | None], None]) -> Course:
    look = ports.look(course)
    shown(course, look)
    if look.verdict == "waiting":
        ports.pause(_PAUSE_SECONDS)
        return course
    details = {"figures": list(look.figures), "reason": look.reason}
    if look.verdict == "good":
        return ports.note(course, Phase.STEPPING if course.goes_on else Phase.VERIFIED, details)
    return _roll_back(course, ports, details)


def _roll_back(course: Course, ports: Ports, details: Mapping[str, Any]) -> Course:
    changes = [each.document() for each in ports.row_off(course)]
    about = {"from": course.source, "release": course.release, "changes": changes}
    return ports.note(course, Phase.ROLLING_BACK, {**about, **details})
