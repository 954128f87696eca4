"""What every long-running process of the platform has: health, metrics and an orderly end.

``/livez`` says that the process runs, ``/readyz`` whether it can work (503 with the reasons when not) and
``/metrics`` is Prometheus text. They are on the process's own port. SIGTERM and SIGINT set ``stopping``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kilo.address import address_of
from kilo.environment import bind_address
from kilo.errors import Unreachable
from kilo.health import Health
from kilo.http_protocol import BoundedHttpProtocol

logger = logging.getLogger(__name__)

_CLOSING_SECONDS = 3.0
"""uvicorn takes up other headers once a second."""


def health_routes(health: Health) -> list[Route]:
    """The routes ``/livez``, ``/readyz`` and ``/metrics``."""

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        reasons = health.reasons
        text = "".join(f"{component}: {reason}\n" for component, reason in reasons.items())
        return PlainTextResponse(text or "ok\n", status_code=503 if reasons else 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


def server(app: Starlette, port: int, grace_seconds: int = 20) -> uvicorn.Server:
    """An HTTP server for ``app`` on this process's address, without signal handlers of its own."""
    config = uvicorn.Config(
        app,
        host=bind_address(),
        port=port,
        http=BoundedHttpProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=grace_seconds,
        lifespan="off",
    )
    made = uvicorn.Server(config)
    made.install_signal_handlers = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    return made


def run_to_end(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's ``main`` on uvloop's event loop, or on asyncio's own where that is not installed."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        from asyncio import new_event_loop  # noqa: PLC0415
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)


def spare_garbage_collection() -> None:
    """Let the collector look at what is new, and rarely, in a process whose batches are many small objects.

    By default it runs every 700 of them: a quarter of the worker's own time. Nothing in a batch is cyclic,
    so what a batch held is freed when it ends all the same.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def stopping_event() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def serve_until_stopped(
    app: Starlette,
    port: int,
    stopping: asyncio.Event,
    work: Sequence[Callable[[], asyncio.Future[None]]] = (),
) -> None:
    """Serve ``app`` and run ``work`` until ``stopping`` is set; work ends by itself when it sees it.

    Raises:
        Unreachable: the port can't be listened on.
        Exception: whatever one of ``work`` raised; the others are stopped first.
    """
    no_core_dumps()
    http = server(app, port)
    serving = asyncio.ensure_future(_serve(http, port))
    working = [each() for each in work]
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([serving, stopped, *working], return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    results = await asyncio.gather(*working, _closed(http), return_exceptions=True)
    http.should_exit = True
    results += await asyncio.gather(serving, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _closed(http: uvicorn.Server) -> None:
    """Close each connection with its next answer, as long as there are any and not for long.

    A connection that is closed while it is idle can meet the request that its client is just sending.
    """
    http.config.encoded_headers.append((b"connection", b"close"))
    deadline = time.monotonic() + _CLOSING_SECONDS
    while http.server_state.connections and time.monotonic() < deadline:  # noqa: ASYNC110  no event says so
        await asyncio.sleep(0.05)


async def _serve(http: uvicorn.Server, port: int) -> None:
    try:
        await http.serve()
    except SystemExit as error:
        msg = f"can't listen on {bind_address()}:{port}"
        raise Unreachable(msg) from error


def no_core_dumps() -> None:
    """Leave no image of this process's memory on a disk: keys and plain values lie in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def log_start(role: str, addresses: Mapping[str, str], limits: Mapping[str, object]) -> None:
    """Log what starts here: version, role, addresses without credentials, and limits.

    Args:
        role: the process, as ``kilo status`` and its metrics call it.
        addresses: URLs and ``HOST:PORT`` by name; of a URL only scheme and hosts are logged.
        limits: counts and times by name, each with its unit in the name.
    """
    shown = [f"{name} {address_of(url) if url else 'none'}" for name, url in addresses.items()]
    shown += [f"{name} {limit}" for name, limit in limits.items()]
    logger.info("%s starts: kilo %s; %s", role, version("kilo"), ", ".join(shown))
