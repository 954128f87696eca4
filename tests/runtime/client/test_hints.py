"""Clients come back when asked to, each at a moment of its own, with what has no second effect alone."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from kilo.client import (
    AsyncRetryTransport,
    EventClient,
    EventsUnavailable,
    NewEvent,
    RetryPolicy,
    RetryTransport,
)
from kilo.client.delivery import Pauses, RepeatBudget, seconds_of

QUICK = RetryPolicy(seconds=5, first_pause_seconds=0.01, longest_pause_seconds=0.05)


@pytest.mark.parametrize("hint", ["1", "2", "10"])
def test_a_thousand_clients_that_are_told_the_same_come_back_spread(hint: str) -> None:
    policy = RetryPolicy()
    pauses = [Pauses(policy, RepeatBudget()).next(hint) or 0.0 for _ in range(1_000)]
    asked = float(hint)
    assert min(pauses) >= asked
    # Over half of what was asked for, so that no tenth of that time sees more than its share and half again.
    bins = Counter(int((pause - asked) / (asked / 20)) for pause in pauses)
    assert len(bins) == 10
    assert max(bins.values()) < 150


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        ("0", 0),
        ("-5", 0),
        ("1e9", 0),
        ("NaN", 0),
        ("٣", 0),
        ("soon", 0),
        ("", 0),
        ("1, 2", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 0),
        ("Fri, 99 Foo 9999", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("9" * 5_000, 999_999_999),
    ],
)
def test_a_hostile_hint_is_no_time_or_ends_the_call(hint: str, seconds: float) -> None:
    assert seconds_of(hint) == seconds
    pause = Pauses(RetryPolicy(), RepeatBudget()).next(hint)
    assert pause is None if seconds else 0 <= (pause or 0) <= 0.1


class Refusing:
    """Answers what it is told, and counts."""

    def __init__(self) -> None:
        self.plan: Iterator[tuple[int, str]] = iter(())
        self.seen: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                server.seen.append(self.headers.get("authorization") or self.command)
                status, hint = next(server.plan, (200, ""))
                self.send_response(status)
                if hint:
                    self.send_header("retry-after", hint)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    server = Refusing()
    yield server
    server.stop()


def sync_status(url: str, method: str, **more: Any) -> int:
    with httpx.Client(transport=RetryTransport(retry=QUICK)) as http:
        return http.request(method, url, **more).status_code


def async_status(url: str, method: str, **more: Any) -> int:
    async def ask() -> int:
        async with httpx.AsyncClient(transport=AsyncRetryTransport(retry=QUICK)) as http:
            return (await http.request(method, url, **more)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [sync_status, async_status])
def test_only_what_has_no_second_effect_is_repeated(ask: Callable[..., int], refusing: Refusing) -> None:
    for method, more, tries in (
        ("GET", {}, 3),
        ("PUT", {"content": b"x"}, 3),
        ("POST", {"content": b"x"}, 1),
        ("POST", {"content": b"x", "headers": {"idempotency-key": "k"}}, 3),
    ):
        refusing.plan, refusing.seen = iter([(503, "0"), (429, "0")]), []
        assert ask(refusing.url, method, **more) == (200 if tries == 3 else 503)
        assert len(refusing.seen) == tries, method
    refusing.plan, refusing.seen = iter([(400, "0")]), []
    assert (ask(refusing.url, "GET"), len(refusing.seen)) == (400, 1)
    # A hint beyond the time of a call: the answer is the caller's, at once.
    refusing.plan, refusing.seen = iter([(429, "86400")]), []
    assert (ask(refusing.url, "GET"), len(refusing.seen)) == (429, 1)
    with pytest.raises(httpx.ConnectError):
        ask("http://127.0.0.1:1", "GET")


def test_a_service_that_is_down_is_not_kept_down(refusing: Refusing) -> None:
    refusing.plan = itertools.repeat((503, "0"))
    policy = RetryPolicy(seconds=5, first_pause_seconds=0.001, longest_pause_seconds=0.001)
    with httpx.Client(transport=RetryTransport(retry=policy)) as http:
        for _ in range(50):
            assert http.get(refusing.url).status_code == 503
    # 50 requests and the ten repeats that a client begins with, not 300.
    assert len(refusing.seen) == 60


def test_a_body_that_is_a_stream_is_sent_once(refusing: Refusing) -> None:
    refusing.plan = iter([(503, "0")])
    with httpx.Client(transport=RetryTransport(retry=QUICK)) as http:
        answer = http.put(refusing.url, content=iter([b"x"]), headers={"content-length": "1"})
    assert (answer.status_code, len(refusing.seen)) == (503, 1)


def test_a_token_is_asked_for_again_at_each_try_and_a_long_hint_is_said(refusing: Refusing) -> None:
    tokens = iter(["first", "second"])
    refusing.plan = iter([(503, "0"), (429, "3600")])
    with (
        EventClient(refusing.url, "acme", token=lambda: next(tokens), retry=QUICK) as client,
        pytest.raises(EventsUnavailable, match="asks to come back in 3600 s"),
    ):
        client.send(NewEvent("order", "1", "order.paid", {}, key="k"))
    assert refusing.seen == ["Bearer first", "Bearer second"]
