"""What an HTTP service of the platform has besides its own routes, for any ASGI application.

::

    async def place(request: Request) -> Response:
        tenant = current_tenant()
        ...

    app = Starlette(routes=[Route("/v1/orders/{order}", place, methods=["PUT"])])

    if __name__ == "__main__":
        run(app, name="orders", port=8080)

:func:`run` serves it with the tenant of each request verified against the stage's, ``/livez``, ``/readyz``
and ``/metrics``, logs, traces where a collector is configured, and an orderly end. Tests wrap the application
with :func:`for_tenants` instead and call it in process. :class:`Database` is a pool of connections that the
service's readiness follows, and :func:`kilo.web.consuming.run_consumer` is for a consumer what :func:`run` is
here. Left out on purpose: routing, templates and sessions,
which the framework of your choice has.
"""

from kilo.extras import requires

with requires("web"):
    from kilo.web.database import Database
    from kilo.web.problem import Problem
    from kilo.web.running import run
    from kilo.web.tenants import for_tenants

__all__ = ["Database", "Problem", "for_tenants", "run"]
