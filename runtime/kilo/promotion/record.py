"""A promotion's course, read back from the audit log of the stage that it changes.

Every step is an entry of the hash chain, and nothing else remembers it: what process leads, and whether one
does, makes no difference to where a promotion stands. An entry that does not follow from those before it is
none, so that a line that somebody wrote into the log moves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from kilo.database.lease import Lease
from kilo.errors import CheckFailed
from kilo.fle.audit.log import append

ACTION = "promotion-step"
Value = bool | int | str | Sequence[str]
"""Of a setting."""


class Phase(StrEnum):
    """Where a course stands, which is also the name of the entry that brought it there."""

    BEGUN = "begun"
    DEPLOYED = "deployed"
    STEPPING = "stepping"
    VERIFIED = "verified"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    REHEARSING = "rehearsing"
    OFF = "off"
    RETURNED = "returned"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self in _ENDED


_ENDED = (Phase.VERIFIED, Phase.ROLLED_BACK, Phase.RETURNED)
_OPENING = (Phase.BEGUN, Phase.ROLLING_BACK, Phase.REHEARSING)
_AFTER = {
    Phase.DEPLOYED: (Phase.BEGUN, Phase.STEPPING),
    Phase.STEPPING: (Phase.DEPLOYED,),
    Phase.VERIFIED: (Phase.DEPLOYED,),
    Phase.ROLLED_BACK: (Phase.ROLLING_BACK,),
    Phase.OFF: (Phase.REHEARSING,),
    Phase.RETURNED: (Phase.OFF,),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A setting of the stage's file, before and after.

    Attributes:
        steps: of a weight that is raised one after the other, each value on the way; the last is ``after``.
    """

    setting: str
    before: Value
    after: Value
    steps: tuple[Value, ...] = ()

    def at(self, step: int) -> Value:
        """What the file must say at a step, counted from 0."""
        return self.steps[step] if step < len(self.steps) else self.after

    def back(self) -> Change:
        """The same change undone."""
        return Change(self.setting, self.after, self.before)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        said = {"setting": self.setting, "before": _plain(self.before), "after": _plain(self.after)}
        return {**said, "steps": [_plain(each) for each in self.steps]} if self.steps else said


@dataclass(frozen=True, slots=True)
class Course:
    """Where a promotion, a roll-back or a rehearsal stands.

    Attributes:
        id: sets it apart from every other of the stage.
        source: the stage that the release comes from; none for dev.
        release: SHA-256 of what was live there.
        requester: who asked for it.
        changes: what is carried out in this phase.
        forward: what its promotion carried out, which a roll-back takes back.
        since: when the phase began, in seconds since the epoch.
        reason: why it is there.
        approvals: signatures in hexadecimal under the promotion, by name.
        step: how many steps of its weights a promotion has gone on by.
    """

    id: str
    phase: Phase
    source: str | None
    release: str
    requester: str
    changes: tuple[Change, ...]
    forward: tuple[Change, ...]
    since: float
    reason: str = ""
    approvals: Mapping[str, str] = field(default_factory=dict[str, str])
    step: int = 0

    @property
    def wanted(self) -> dict[str, Value]:
        """What the stage's file must say in this phase."""
        return {each.setting: each.at(self.step) for each in self.changes}

    @property
    def goes_on(self) -> bool:
        """Whether a weight has steps ahead."""
        return any(self.step + 1 < len(each.steps) for each in self.changes)


def read_course(entries: Iterable[Mapping[str, Any]]) -> Course | None:
    """The newest course that ``entries`` tell of, in their order; None where there was none."""
    course: Course | None = None
    for entry in entries:
        try:
            course = _next(course, entry) or course
        except (AttributeError, KeyError, TypeError, ValueError):
            # No program of ours wrote that.
            continue
    return course


def _next(course: Course | None, entry: Mapping[str, Any]) -> Course | None:
    """The course after ``entry``, or None when it does not follow."""
    details = entry["details"]
    phase, at = Phase(details["act"]), datetime.fromisoformat(entry["at"]).timestamp()
    same = course is not None and course.id == details["promotion"]
    reason = str(details.get("reason", ""))
    if phase in _OPENING:
        changes = tuple(
            Change(
                str(each["setting"]),
                _value(each["before"]),
                _value(each["after"]),
                tuple(_value(value) for value in each.get("steps", ())),
            )
            for each in details["changes"]
        )
        if phase is Phase.ROLLING_BACK:
            forward = course.forward if same and course else ()
        else:
            if course is not None and not course.phase.ended:
                return None
            forward = changes
        release, source = str(details["release"]), details["from"]
        requester = str(entry["actor"])
        number = str(details["promotion"])
        approvals = {str(name): str(each) for name, each in details.get("approvals", {}).items()}
        return Course(number, phase, source, release, requester, changes, forward, at, reason, approvals)
    if course is None or not same or course.phase not in _AFTER[phase]:
        return None
    if phase in {Phase.VERIFIED, Phase.STEPPING} and course.goes_on is (phase is Phase.VERIFIED):
        return None
    back = tuple(each.back() for each in course.changes)
    return replace(
        course,
        phase=phase,
        since=at,
        reason=reason,
        changes=back if phase is Phase.OFF else course.changes,
        step=course.step + (phase is Phase.STEPPING),
    )


def _value(given: object) -> Value:
    if isinstance(given, (bool, int, str)):
        return given
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return tuple(given)
    msg = "neither a truth value, a number, a word nor a list of words"
    raise TypeError(msg)


def _plain(value: Value) -> object:
    return value if isinstance(value, (bool, int, str)) else list(value)


class Journal:
    """The audit log of a stage, for promotions to it.

    Args:
        connection: on the stage's tables; each entry is a transaction of its own.
        stage: the stage's name.
        program: the version of what writes.
        lease: whose holder alone may write; None for those who only read.
    """

    def __init__(
        self, connection: psycopg.Connection[TupleRow], stage: str, program: str, lease: Lease | None = None
    ) -> None:
        self._connection, self._stage, self._program, self._lease = connection, stage, program, lease
        self._subject = f"promotion/{stage}"

    def steps(self) -> list[dict[str, Any]]:
        """Every step of the stage's promotions, the oldest first."""
        with self._connection.transaction():
            rows = self._connection.execute(
                "SELECT entry FROM fle_audit WHERE entry::jsonb ->> 'action' = %s"
                " AND entry::jsonb ->> 'subject' = %s ORDER BY seq",
                (ACTION, self._subject),
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def course(self) -> Course | None:
        """Where the newest promotion of the stage stands."""
        return read_course(self.steps())

    def held(self) -> None:
        """Make sure that this process still leads.

        Raises:
            LeaseLost: another one does.
        """
        with self._connection.transaction():
            self._fence()

    def note(self, who: str, phase: Phase, promotion: str, details: Mapping[str, Any]) -> Course:
        """Append a step, and read back where that leaves the course.

        Raises:
            LeaseLost: another process leads; nothing was written.
            CheckFailed: the step does not follow from those before it.
        """
        content = {"act": phase.value, "promotion": promotion, "program": self._program, **details}
        with self._connection.transaction():
            self._fence()
            append(self._connection, who, ACTION, self._subject, content)
        found = self.course()
        if found is None or (found.id, found.phase) != (promotion, phase):
            msg = f"promotion {promotion}: '{phase}' does not follow from where the audit log says it stands"
            raise CheckFailed(msg)
        return found

    def _fence(self) -> None:
        if self._lease is not None:
            self._lease.fence_here(self._connection)
