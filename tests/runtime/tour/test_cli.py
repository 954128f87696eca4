"""What the tour says of the events that it sent: where to look at them, and what an interruption left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence

import pytest

from kilo.tour import cli
from kilo.tour.events import Event
from kilo.tour.sender import Answer
from tests.events import make_outputs


def made(tenant: str, number: int) -> Answer:
    return Answer(Event(tenant, f"k-{number}", "{}", f"event {number}"), fingerprint=f"{tenant}/k-{number}")


ANSWERS = [
    *(made("globex", number) for number in (1, 2, 2, 3, 4)),
    made("acme", 5),
    Answer(Event("acme", "k-6", "{}", "event 6"), refusal="422"),
]


def test_fingerprints_are_listed_whole_in_json_and_as_a_few_commands_in_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli._print_json({}, ANSWERS, None)  # pyright: ignore[reportPrivateUsage]
    assert '"globex/k-4"' in capsys.readouterr().out
    cli._print_fingerprints(ANSWERS)  # pyright: ignore[reportPrivateUsage]
    assert capsys.readouterr().out.splitlines() == [
        "",
        "acme: 1 events; --json lists them all",
        "  kilo trace acme/k-5 --tenant acme",
        "  kilo events find --tenant acme",
        "",
        "globex: 4 events; --json lists them all",
        *(f"  kilo trace globex/k-{number} --tenant globex" for number in (1, 2, 3)),
        "  kilo events find --tenant globex",
    ]


def test_an_interruption_says_what_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(
        _url: str, _header: str, _events: Sequence[Event], *, answered: Callable[[Answer], None], **_: object
    ) -> list[Answer]:
        for answer in ANSWERS:
            answered(answer)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(cli, "send_all", interrupted)
    # A shell starts what it runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    events = [answer.event for answer in ANSWERS] * 2
    with pytest.raises(KeyboardInterrupt):
        cli._send_and_wait(make_outputs("nats://none"), "", events, 1)  # pyright: ignore[reportPrivateUsage]
    assert "of 14 events 6 are acknowledged and will be delivered, 1 were refused, 7 have no answer" in (
        capsys.readouterr().err
    )
