"""``kilo rehearse``: a next version to try ramps on, which fails for the tenants that one names.

It answers what ingest would answer and stores nothing, so a rehearsal leaves no events behind.
"""

from __future__ import annotations

from typing import Annotated

import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kilo.health import Health
from kilo.service import health_routes, run_to_end, serve_until_stopped, stopping_event


def rehearse(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for requests and health.")] = 10081,
    fails_for: Annotated[
        list[str] | None, typer.Option("--fails-for", metavar="TENANT", help="Answered with 500.")
    ] = None,
    tenant_header: Annotated[str, typer.Option(help="The header that names the tenant.")] = "x-tenant-id",
) -> None:
    """Serve a next version that stores nothing and fails for some tenants, to rehearse ramps on.

    Example:  kilo rehearse --fails-for globex
    """
    run_to_end(_serve(make_app(frozenset(fails_for or ()), tenant_header), port))


def make_app(fails_for: frozenset[str], tenant_header: str) -> Starlette:
    """The application: every path is answered, apart from those of health."""

    async def answer(request: Request) -> Response:
        await request.body()
        if request.headers.get(tenant_header) in fails_for:
            return JSONResponse({"title": "Internal Server Error", "status": 500}, status_code=500)
        return JSONResponse({"status": "rehearsed"}, status_code=202)

    methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(routes=[*health_routes(Health()), Route("/{path:path}", answer, methods=methods)])


async def _serve(app: Starlette, port: int) -> None:
    await serve_until_stopped(app, port, stopping_event())
