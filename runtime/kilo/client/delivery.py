"""How requests are repeated and answers are read, without any I/O: both clients drive these steps.

A request is repeated when it was not answered, or with a status that says that it may be; the pauses grow
with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) and are never
shorter than Retry-After (RFC 9110, section 10.2.3), nor the same for all who were told the same. Two budgets
bound it: a time for each call, and a share of repeats over the whole client, so that its repeats don't keep
a platform down that is ill already.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from kilo.client.events import EventRefused, EventsUnavailable, Sent

REPEATABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_FAILED_DEPENDENCY = 424
_EARNED, _MOST_TOKENS = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a request is repeated.

    Attributes:
        seconds: for a call in all, pauses and repeats included.
        attempts: of one request, the first included.
        first_pause_seconds: the longest first pause; it doubles each time.
        longest_pause_seconds: what it grows to. A longer Retry-After counts all the same; one beyond
            ``seconds`` ends the call at once.
    """

    seconds: float = 30.0
    attempts: int = 6
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: an HTTP answer, or status 0 and why there was none."""

    status: int
    retry_after: str = ""
    body: bytes = b""
    error: str = ""


NOTHING = Answer(0)
Steps = Generator[Request | float, Answer, Any]
"""Yields a request to send, and is sent its answer; or seconds to wait, and is sent :data:`NOTHING`."""


class RepeatBudget:
    """Repeats that a client has left: a tenth of its requests, and a few to begin with."""

    def __init__(self) -> None:
        self._tokens = _MOST_TOKENS

    def earn(self) -> None:
        """A request that was answered well."""
        self._tokens = min(_MOST_TOKENS, self._tokens + _EARNED)

    def take(self) -> bool:
        """Whether one more may be repeated."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Pauses:
    """The pauses of one call, as long as it has time and budget for repeats."""

    def __init__(self, policy: RetryPolicy, budget: RepeatBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._deadline = time.monotonic() + policy.seconds
        self._count = 0
        self.asked_seconds = 0.0
        """What the last answer asked for."""

    def next(self, retry_after: str) -> float | None:
        """Seconds to wait before a repeat; none when there is no time or no budget for one.

        Args:
            retry_after: the header, if there was one. It may be hostile: what is no time counts for nothing,
                and a time beyond the call's own ends the call.
        """
        self._count += 1
        longest = min(
            self._policy.longest_pause_seconds,
            self._policy.first_pause_seconds * 2 ** min(self._count - 1, 30),
        )
        self.asked_seconds = seconds_of(retry_after)
        # What is asked for, and some more: everybody was told the same, in whole seconds.
        pause = self.asked_seconds + random.uniform(0, max(longest, self.asked_seconds / 2))  # noqa: S311  jitter
        if time.monotonic() + pause >= self._deadline or not self._budget.take():
            return None
        return pause


class Delivery:
    """Requests of one call."""

    def __init__(self, policy: RetryPolicy, budget: RepeatBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._pauses = Pauses(policy, budget)

    def one(self, request: Request, key: str) -> Steps:
        """Deliver one event; its value is a :class:`Sent`.

        Raises:
            EventRefused: the platform refuses it.
            EventsUnavailable: nobody acknowledged it in time.
        """
        document = yield from self._answered(request)
        fingerprint, status = document.get("fingerprint"), document.get("status")
        if status not in {"accepted", "duplicate"} or not isinstance(fingerprint, str):
            raise EventsUnavailable(_UNREADABLE)
        return Sent(key, status, fingerprint)

    def many(self, request: Request, keys: Sequence[str], lines: Sequence[bytes], *, atomic: bool) -> Steps:
        """Deliver a batch; its value is a list of :class:`Sent`, in the order of ``keys``.

        Events that may be tried again are sent again by themselves, in their order. What could not be
        delivered in time is ``failed`` with status 503 in its problem.

        Raises:
            EventRefused: the platform refuses the request as a whole.
        """
        results: list[Sent | None] = [None] * len(keys)
        open_numbers = list(range(len(keys)))
        while open_numbers:
            part = Request(request.path, request.headers, b"".join(lines[number] for number in open_numbers))
            try:
                document = yield from self._answered(part, takes_results=True)
                found = _results(document, [keys[number] for number in open_numbers])
            except EventsUnavailable as error:
                problem = {"type": "about:blank", "status": 503, "detail": str(error)}
                found = [Sent(keys[number], "failed", None, problem) for number in open_numbers]
                for number, sent in zip(open_numbers, found, strict=True):
                    results[number] = results[number] or sent
                break
            for number, sent in zip(open_numbers, found, strict=True):
                results[number] = sent
            again = [n for n, sent in zip(open_numbers, found, strict=True) if _may_repeat(sent)]
            if atomic and any(sent.status == "failed" and not _may_repeat(sent) for sent in found):
                break
            if not again:
                break
            pause = self._pauses.next("")
            if pause is None:
                break
            yield pause
            open_numbers = again
        return [sent for sent in results if sent is not None]

    def _answered(
        self, request: Request, *, takes_results: bool = False
    ) -> Generator[Request | float, Answer, dict[str, Any]]:
        attempt = 0
        while True:
            attempt += 1
            answer = yield request
            document = _json_object(answer.body)
            if answer.status in {200, 201} and document is not None:
                self._budget.earn()
                return document
            if takes_results and answer.status == 422 and document is not None and "results" in document:
                # All or nothing, and nothing it is: the results say why.
                return document
            if answer.status and answer.status not in REPEATABLE and answer.status // 100 != 2:
                raise EventRefused(document or {"status": answer.status, "detail": "no problem details"})
            pause = self._pauses.next(answer.retry_after) if attempt < self._policy.attempts else None
            if pause is None:
                detail = (document or {}).get("detail")
                reason = answer.error or (f"{answer.status}: {detail}" if detail else str(answer.status))
                msg = f"not acknowledged after {attempt} attempts, the last: {reason[:300]}"
                if self._pauses.asked_seconds > self._policy.seconds:
                    msg += f"; it asks to come back in {self._pauses.asked_seconds:.0f} s"
                raise EventsUnavailable(msg)
            yield pause


_UNREADABLE = "the answer is none of this platform's; is the address right?"


def _results(document: Mapping[str, Any], keys: Sequence[str]) -> list[Sent]:
    given = document.get("results")
    if not isinstance(given, list) or len(cast(list[Any], given)) != len(keys):
        raise EventsUnavailable(_UNREADABLE)
    return [_sent(each, number, keys[number]) for number, each in enumerate(cast(list[Any], given))]


def _sent(given: Any, number: int, key: str) -> Sent:
    if not isinstance(given, dict):
        raise EventsUnavailable(_UNREADABLE)
    result = cast(dict[str, Any], given)
    status, fingerprint, problem = (result.get(name) for name in ("status", "fingerprint", "problem"))
    if result.get("index") == number:
        if status in {"accepted", "duplicate"} and isinstance(fingerprint, str):
            return Sent(key, status, fingerprint)
        if status == "failed" and isinstance(problem, dict):
            return Sent(key, "failed", None, cast(dict[str, Any], problem))
    raise EventsUnavailable(_UNREADABLE)


def _may_repeat(sent: Sent) -> bool:
    status = (sent.problem or {}).get("status")
    return sent.status == "failed" and status in {*REPEATABLE, _FAILED_DEPENDENCY}


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], document) if isinstance(document, dict) else None


def seconds_of(retry_after: str) -> float:
    """Seconds, or the time until an HTTP date; 0 for what is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
