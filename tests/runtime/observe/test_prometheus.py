"""The one client of Prometheus, against a real one and against what is none."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from functools import cache

import pytest
from typing_extensions import override

from kilo.errors import BadInput, Unreachable
from kilo.observe.prometheus import Prometheus
from tests.prometheus import prometheus


@cache
def now() -> int:
    """When the first of these tests ran, which in a long run is long after they were collected."""
    return int(time.time())


def sampled() -> list[int]:
    """A gap of a minute, after which it ends."""
    return [now() - ago for ago in (300, 285, 270, 210, 195)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    samples = "".join(f'held{{who="a"}} {place} {at}\n' for place, at in enumerate(sampled()))
    history = f"# TYPE held gauge\n{samples}# EOF\n"
    with (
        prometheus(tmp_path_factory.mktemp("prometheus"), history=history) as url,
        Prometheus(url) as found,
    ):
        yield found


def test_a_series_has_its_samples_as_they_were_scraped(client: Prometheus) -> None:
    (series,) = client.series("held[10m]")
    assert series.labels["who"] == "a"
    assert [(at, value) for at, value in series.samples] == list(zip(sampled(), range(5), strict=True))
    age = series.age(now())
    assert age == 195


def test_what_is_not_there_is_nothing_and_no_error(client: Prometheus) -> None:
    assert client.query("absent_series") == []
    assert client.series("absent_series[1h]") == []
    assert client.lines("absent_series", [now() - 60, now()]) == []


def test_a_line_has_nothing_where_there_was_no_number(client: Prometheus) -> None:
    (line,) = client.lines("held", list(range(sampled()[0] - 30, sampled()[4] + 1, 15)))
    assert list(line.values[:5]) == [None, None, 0, 1, 2]
    (line,) = client.lines("held / 0", list(range(sampled()[0], sampled()[4] + 1, 15)))
    assert set(line.values) == {None}, "neither infinite nor not a number"


def test_a_refused_query_says_why(client: Prometheus) -> None:
    with pytest.raises(BadInput, match=r"refuses the query: .*parse error"):
        client.query("sum(")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'"success"', b'{"status": "success"}'])
def test_what_is_no_prometheus_is_said(body: bytes) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with Prometheus(url, advice="ask somebody") as client, pytest.raises(Unreachable, match="ask somebody"):
        client.query("up")
    server.shutdown()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[", "nonsense"])
def test_one_that_does_not_answer_is_named(url: str) -> None:
    with Prometheus(url) as client, pytest.raises(Unreachable, match=r"does not answer .*kilo status"):
        client.query("up")
