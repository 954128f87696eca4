"""Sends events over HTTP as a careful client does: again with the same key until there is an answer.

A refusal (4xx) is an answer. A 429 is waited for as long as it says, and a server that is away or
fails is tried again until the time is up: the idempotency key makes that safe.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from kilo.tour.events import Event

CONCURRENCY = 16
_TOO_MANY_REQUESTS = 429
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Answer:
    """What became of one event: acknowledged with a fingerprint, or refused with a reason."""

    event: Event
    fingerprint: str | None = None
    refusal: str | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether the platform has taken it over."""
        return self.fingerprint is not None


class _Patience:
    """How long is waited on: renewed by every answer, so that many events may take as long as they need."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self.renew()

    def renew(self) -> None:
        """An event was answered."""
        self._deadline = time.monotonic() + self._timeout_seconds

    @property
    def left_seconds(self) -> float:
        """Until everything without an answer is given up; not below 0."""
        return max(0.0, self._deadline - time.monotonic())


async def send_all(
    url: str,
    tenant_header: str,
    events: Sequence[Event],
    *,
    timeout_seconds: float,
    answered: Callable[[Answer], None] = lambda _: None,
) -> list[Answer]:
    """Send every event and return the answers in the events' order.

    Events of one ordering key are sent one after the other, others side by side.

    Args:
        url: of the gateway.
        tenant_header: names the tenant of a request.
        events: to send.
        timeout_seconds: after which, without an answer to any event, what has none is given up.
        answered: called with each answer as it comes.
    """
    patience = _Patience(timeout_seconds)
    keys: dict[object, list[int]] = {}
    for index, event in enumerate(events):
        keys.setdefault(_ordering_key(event), []).append(index)
    answers: dict[int, Answer] = {}
    slots = asyncio.Semaphore(CONCURRENCY)
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=url, timeout=10, limits=limits) as client:

        async def run(indexes: list[int]) -> None:
            for index in indexes:
                answers[index] = await _send(client, slots, tenant_header, events[index], patience)
                answered(answers[index])

        await asyncio.gather(*(run(indexes) for indexes in keys.values()))
    return [answers[index] for index in range(len(events))]


def _ordering_key(event: Event) -> object:
    content: Any = event.content()
    return event.tenant, str(content.get("aggregate")), str(content.get("aggregate_id"))


async def _send(
    client: httpx.AsyncClient, slots: asyncio.Semaphore, tenant_header: str, event: Event, patience: _Patience
) -> Answer:
    headers = {
        tenant_header: event.tenant,
        "idempotency-key": event.idempotency_key,
        "content-type": "application/json",
    }
    pause = _FIRST_PAUSE_SECONDS
    problem = "no answer"
    while patience.left_seconds > 0:
        wait = pause * (0.5 + random.random())  # noqa: S311  spreads clients, hides nothing
        try:
            # Not held while it pauses: events that are refused again and again must not stop all others.
            async with slots:
                response = await client.post("/v1/events", content=event.body.encode(), headers=headers)
        except httpx.HTTPError as error:
            problem = f"no answer ({type(error).__name__})"
        else:
            if response.is_success:
                patience.renew()
                return Answer(event, fingerprint=str(response.json()["fingerprint"]))
            problem = _problem(response)
            if response.status_code == _TOO_MANY_REQUESTS:
                wait = max(wait, float(response.headers.get("retry-after", 0)))
            elif response.is_client_error:
                patience.renew()
                return Answer(event, refusal=problem)
        await asyncio.sleep(min(wait, patience.left_seconds))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    return Answer(event, refusal=problem)


def _problem(response: httpx.Response) -> str:
    """The title and detail of a problem (RFC 9457), or the status where it is none."""
    try:
        body: Any = response.json()
        return f"{response.status_code} {body.get('title', '')}: {body.get('detail', '')}"
    except (ValueError, AttributeError):
        return f"HTTP {response.status_code}"
