"""For whom the current request or message is handled, and in which trace; kept by :mod:`contextvars`.

A service's entrance sets it (:mod:`kilo.web`, a consumer), and what runs for that request, in its tasks and
in threads started with :func:`asyncio.to_thread`, reads it. Left out on purpose: a default tenant. Code that
asks outside of a request has no tenant, and says so.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from kilo.errors import BadInput


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Whose request it is, and its ``traceparent`` (W3C Trace Context)."""

    tenant: str
    traceparent: str | None = None


_current: ContextVar[RequestContext | None] = ContextVar("kilo_request", default=None)


class NoTenant(BadInput):
    """The tenant was asked for where no request or message is handled."""


def current_tenant() -> str:
    """The tenant that the current request or message belongs to.

    Raises:
        NoTenant: there is none; code outside of a request says whom it works for with :func:`acting_for`.
    """
    found = _current.get()
    if found is None:
        msg = "no tenant: this runs for no request; say for whom with kilo.context.acting_for(TENANT)"
        raise NoTenant(msg)
    return found.tenant


def current_traceparent() -> str | None:
    """The ``traceparent`` of the current request or message, none outside of one or without a trace."""
    found = _current.get()
    return found.traceparent if found else None


def context_headers(tenant_header: str = "x-tenant-id") -> dict[str, str]:
    """HTTP headers that carry tenant and trace to another service; empty outside of a request.

    Only for services of the same stage: an address elsewhere must not learn whose request it was.
    """
    found = _current.get()
    if found is None:
        return {}
    trace = {"traceparent": found.traceparent} if found.traceparent else {}
    return {tenant_header: found.tenant, **trace}


@contextmanager
def acting_for(tenant: str, traceparent: str | None = None) -> Generator[None]:
    """Work for ``tenant`` in this block, as a request of it would; blocks may lie in each other."""
    token = _current.set(RequestContext(tenant, traceparent))
    try:
        yield
    finally:
        _current.reset(token)
