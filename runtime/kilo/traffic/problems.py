"""The gateway's own refusals as problem details (RFC 9457, ``application/problem+json``).

Answers of the services behind it pass unchanged. Every 429 and 503 carries ``Retry-After`` (RFC 9110,
section 10.2.3): the time until the tenant's bucket has a token, or a second until there is room again. To
each, what the millisecond of the request's arrival says is added, so that clients who were refused together
don't come back as one.
"""

from __future__ import annotations

from kilo.traffic.routes import TENANT_STATE
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.xds import Json, typed

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_ASKED = 'int(response.headers["retry-after"])'
_ARRIVAL = "request.time.getMilliseconds()"
_UNTIL_A_TOKEN = f"%CEL({_ASKED} + {_ARRIVAL} % ({_ASKED} + 1))%"
"""Between what the bucket asks for and twice that."""
_UNTIL_THERE_IS_ROOM = f"%CEL(1 + {_ARRIVAL} % 3)%"
"""Adaptive limits look ten times a second: a second is enough, and three are the spread."""


def render_local_replies(settings: GatewaySettings) -> Json:
    """Render the connection manager's ``local_reply_config``; the first mapper that matches wins."""
    return {
        "mappers": [
            *_refused(settings),
            *_nowhere(settings),
            _stranger(settings.tenant_header),
            *(_problem(status) for status in _TITLES),
        ],
        "body_format": _body(None),
    }


def _when(expression: str) -> Json:
    """A filter of mappers that asks for more than a status: a CEL expression."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": typed(
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression
            ),
        }
    }


def _refused(settings: GatewaySettings) -> list[Json]:
    """Refusals for want of room: which limit it was, whose, and when to come back."""

    def mapper(details: str, limit: str, detail: str, hint: str) -> Json:
        return {
            "filter": _when(f'response.code_details == "{details}"'),
            # Envoy's overload manager answers 503, as an upstream without healthy hosts would; to a client
            # the one means come back later, the other that the service is down.
            "status_code": 429,
            "headers_to_add": [_retry_after(hint, "OVERWRITE_IF_EXISTS_OR_ADD")],
            "body_format_override": _body(
                429,
                detail,
                kind=f"{settings.docs_url}#refusals",
                limit=limit,
                tenant=f"%FILTER_STATE({TENANT_STATE}:PLAIN)%",
            ),
        }

    return [
        mapper(
            "local_rate_limited",
            "tenant",
            "the tenant's limit is used up; try again after Retry-After seconds",
            _UNTIL_A_TOKEN,
        ),
        *(
            [
                mapper(
                    "request_rate_limited",
                    "tenant",
                    "the tenant's limit is used up; try again after Retry-After seconds",
                    _UNTIL_THERE_IS_ROOM,
                )
            ]
            if settings.rate_limit_service
            else []
        ),
        mapper(
            "reached_concurrency_limit",
            "capacity",
            "the services are at their capacity, and this is above what the tenant is sure of; try again "
            "after Retry-After seconds",
            _UNTIL_THERE_IS_ROOM,
        ),
        mapper(
            "overload",
            "gateway",
            "the gateway is at its own limits; try again after Retry-After seconds",
            _UNTIL_THERE_IS_ROOM,
        ),
    ]


def _retry_after(value: str, action: str) -> Json:
    return {"header": {"key": "retry-after", "value": value}, "append_action": action}


def _nowhere(settings: GatewaySettings) -> list[Json]:
    """Requests without a route: no tenant is named, or what is asked for is none of the API's paths."""
    header = settings.tenant_header
    lost = 'response.code_details == "route_not_found"'
    if settings.identity and settings.identity.jwt:
        claim = settings.identity.jwt.claim
        absent = (403, f"the token names no tenant: it has no claim {claim}")
    elif settings.identity and settings.identity.client_certificate:
        absent = (403, "the certificate names no tenant: it has no DNS name")
    else:
        absent = (400, f"{header}: missing; name the tenant in this header")
    return [
        {
            "filter": _when(f'{lost} && !("{header}" in request.headers)'),
            "status_code": absent[0],
            "body_format_override": _body(*absent),
        },
        {
            "filter": _when(f'{lost} && !request.headers["{header}"].matches("^[a-z0-9-]+$")'),
            "status_code": 403,
            "body_format_override": _body(403, f"{header}: no such tenant"),
        },
        {
            "filter": _when(lost),
            "body_format_override": _body(404, f"no such path; the API is {settings.api_prefix}"),
        },
    ]


def _stranger(header: str) -> Json:
    return {
        "filter": _when('response.code_details.startsWith("rbac_access_denied")'),
        "body_format_override": _body(
            403, f"{header} is believed from the trusted proxy alone; come through it"
        ),
    }


def _problem(status: int) -> Json:
    reply: Json = {
        "filter": {
            "status_code_filter": {
                "comparison": {
                    "op": "EQ",
                    "value": {"default_value": status, "runtime_key": f"gateway.reply.{status}"},
                }
            }
        },
        "body_format_override": _body(status),
    }
    if status in {429, 503}:
        reply["headers_to_add"] = [_retry_after(_UNTIL_THERE_IS_ROOM, "ADD_IF_ABSENT")]
    return reply


def _body(
    status: int | None, detail: str = "%LOCAL_REPLY_BODY%", kind: str = "about:blank", **more: str
) -> Json:
    return {
        "json_format": {
            "type": kind,
            "title": _TITLES[status] if status else "Error",
            "status": status or "%RESPONSE_CODE%",
            "detail": detail,
            **more,
        },
        "content_type": "application/problem+json",
    }
