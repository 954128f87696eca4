"""What a process says when it starts: enough to know what runs where, and nothing that is secret."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kilo.address import address_of
from kilo.service import serve_until_stopped
from kilo.testing.servers.ports import free_port
from tests.events import make_outputs
from tests.patience import PATIENCE_SECONDS, eventually


class Started(Exception):
    """Raised in place of the work: what comes before it is looked at."""


def stop(*_: object, **__: object) -> None:
    raise Started


def stop_coroutine(main: Coroutine[Any, Any, None]) -> None:
    main.close()
    raise Started


@pytest.mark.parametrize(
    ("role", "command", "arguments", "ending", "limit"),
    [
        ("ingest", "kilo.ingest.cli:serve", {}, "kilo.ingest.cli.run_to_end", "payload bytes "),
        ("outbox-worker", "kilo.outbox.cli:worker", {}, None, "rows a batch 2000"),
        ("outbox-reconciler", "kilo.outbox.cli:reconcile", {}, None, "seconds behind 30.0"),
        ("consumer", "kilo.consumer.cli:run", {}, None, "stream "),
        ("cdc-watch", "kilo.cdc.cli:watch", {"connector": "http://u:hidden@c:1/live"}, None, "slot "),
        ("mirror", "kilo.registry.cli:mirror", {}, "kilo.registry.mirror.MirrorMetrics", "pushes at once 4"),
        (
            "backup-exporter",
            "kilo.backup.cli:exporter",
            {},
            "kilo.backup.cli.CollectorRegistry",
            "between looks 60",
        ),
    ],
)
def test_every_process_says_what_starts_and_where(
    role: str,
    command: str,
    arguments: dict[str, Any],
    ending: str | None,
    limit: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = make_outputs("nats://user:hidden@bus:4222")
    (tmp_path / "outputs.json").write_text(outputs.model_dump_json())
    monkeypatch.setenv("KILO_OUTPUTS", str(tmp_path / "outputs.json"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://kilo:hidden@db:5432/kilo?password=hidden")
    monkeypatch.setattr(asyncio, "run", stop_coroutine)
    if ending:
        monkeypatch.setattr(ending, stop_coroutine if ending.endswith("run_to_end") else stop)
    monkeypatch.setattr("kilo.backup.cli.open_stores", lambda _: {})
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    caplog.set_level(logging.INFO)
    module, _, name = command.partition(":")
    with pytest.raises(Started):
        getattr(import_module(module), name)(**{"port": 10099, **arguments})
    (line,) = [record.getMessage() for record in caplog.records if " starts: " in record.getMessage()]
    assert line.startswith(f"{role} starts: kilo {version('kilo')}; listens on 127.0.0.1:10099, ")
    assert limit in line
    assert "hidden" not in line
    assert "…" not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://kilo:secret@db:5432/kilo?password=other", "postgresql://db:5432"),
        ("postgresql://kilo:secret@db-1:5432,db-2/kilo", "postgresql://db-1:5432,db-2"),
        ("nats://u:secret@a:4222,nats://u:secret@[::1]:4222", "nats://a:4222,nats://[::1]:4222"),
        ("nats://secret-token@bus", "nats://bus"),
        ("registry.example:5000/team/images", "registry.example:5000"),
        # Passwords that should have been percent-encoded:
        ("postgresql://kilo:sec/ret@db/kilo", "postgresql://…"),
        ("postgresql://kilo:12#ret@db/kilo", "postgresql://…"),
        ("postgresql://kilo:s?ret@db/kilo", "postgresql://…"),
        ("postgresql://kilo:s@ret@db/kilo", "postgresql://db"),
        ("postgresql://kilo:12,34@db/kilo", "postgresql://db"),
        ("postgresql://[kilo:secret@db", "postgresql://…"),
        ("host=db password=secret", "…"),
        ("user:secret@db", "…"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_password(url: str, shown: str) -> None:
    assert address_of(url) == shown


async def test_a_server_that_stops_closes_kept_connections_with_an_answer() -> None:
    """Not between two: a request that is on its way then would be lost, and may not be sent again."""

    async def answer(_request: Request) -> Response:
        return PlainTextResponse("ok")

    app, port, stopping = Starlette(routes=[Route("/", answer)]), free_port(), asyncio.Event()
    serving = asyncio.create_task(serve_until_stopped(app, port, stopping))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await eventually(lambda: serving.done() or _listens(port))
        assert "connection" not in (await http.get("/")).headers
        stopping.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await http.get("/")).headers.get("connection") != "close":
                pass
    await serving


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
