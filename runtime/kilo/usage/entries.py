"""What the gateway writes of each request for usage: one JSON line, and the whole list of its fields.

Everything here is one of a few values that the stage's file or HTTP knows, a number or a time. No path,
query, header, address or id of a request is among them, so a line can name nobody: a path is its route's
name, a method is a registered one or ``other``, the tenant is one of the list or nobody, and of a refusal
only the limit that refused it is told.

Format: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage
"""

from __future__ import annotations

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "other"
VERSIONS = ("stable", "next")
SHED_REASONS = ("local_rate_limited", "request_rate_limited", "reached_concurrency_limit", "overload")
"""Envoy's words for refusals for want of room: the tenant's limit as the gateway or the rate limit service
counts it, the services' room, the gateway's."""

FIELDS = ("at", "method", "received", "route", "sent", "shed", "status", "tenant", "version")
"""Names in a line, in their order. ``received`` and ``sent`` are bytes of bodies; ``at`` is UTC."""
LINE_BEGINS = b'{"at":"'
"""Each line's beginning, and nowhere else in one: values have no quotes."""


def render_entry(tenant: str, version: str) -> dict[str, str]:
    """The ``json_format`` of Envoy's access log, which writes fields by their names' order.

    Args:
        tenant: Envoy's expression for the tenant that a request was found to be of.
        version: its expression for the version that served it.
    """
    return {
        "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6f)%",
        "tenant": tenant,
        "route": "%ROUTE_NAME%",
        "method": _one_of("request.method", METHODS, OTHER),
        "status": "%RESPONSE_CODE%",
        "version": version,
        "received": "%BYTES_RECEIVED%",
        "sent": "%BYTES_SENT%",
        "shed": _one_of("response.code_details", SHED_REASONS, ""),
    }


def _one_of(value: str, known: tuple[str, ...], otherwise: str) -> str:
    """A CEL expression that lets nothing through but what is known: HTTP/2 takes any word for a method."""
    listed = ", ".join(f'"{each}"' for each in known)
    return f'%CEL({value} in [{listed}] ? {value} : "{otherwise}")%'
