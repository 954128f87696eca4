"""The pages over HTTP, on loopback alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kilo.dash.event import read_event
from kilo.dash.goals import Standings
from kilo.dash.reading import Reading, describe_pages
from kilo.errors import BadInput, KiloError
from kilo.observe.rules import every_alert

ASSETS = Path(__file__).parent / "assets"
_HEADERS = {
    # Nothing from elsewhere, and nobody else's frame.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_app(reading: Reading, runbooks: Path | None) -> Starlette:
    """The application; ``runbooks`` is the folder of the alerts' pages, where there is one."""
    alerts = {alert.name for alert in every_alert()}
    standings = Standings(reading.outputs).read

    async def index(_request: Request) -> Response:
        return FileResponse(ASSETS / "index.html", headers=_HEADERS)

    async def pages(_request: Request) -> Response:
        return JSONResponse({"pages": describe_pages(), "tenants": reading.tenants()})

    async def fleet(_request: Request) -> Response:
        return await _answer(reading.fleet)

    async def goals(_request: Request) -> Response:
        return await _answer(standings)

    async def panel(request: Request) -> Response:
        query, path = request.query_params, request.path_params
        tenant = query.get("tenant") or None
        return await _answer(
            lambda: reading.panel(path["file"], path["number"], tenant, query.get("range", "1h"))
        )

    async def marks(request: Request) -> Response:
        return await _answer(lambda: reading.marks(request.query_params.get("range", "1h")))

    async def event(request: Request) -> Response:
        query = request.query_params
        return await _answer(lambda: read_event(query.get("fingerprint", ""), query.get("tenant") or None))

    async def runbook(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in alerts or runbooks is None:
            return PlainTextResponse("no such runbook\n", 404)
        text = (runbooks / f"{name}.md").read_text(encoding="utf-8")
        return PlainTextResponse(text, headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/pages", pages),
            Route("/api/fleet", fleet),
            Route("/api/goals", goals),
            Route("/api/panel/{file}/{number:int}", panel),
            Route("/api/marks", marks),
            Route("/api/event", event),
            Route("/runbooks/{name}", runbook),
            Mount("/assets", StaticFiles(directory=ASSETS)),
        ],
        # A page elsewhere that resolves its own name to this machine is not answered.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


async def _answer(read: Callable[[], dict[str, Any]]) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(read))
    except KiloError as error:
        return JSONResponse({"error": str(error)}, 400 if isinstance(error, BadInput) else 502)
