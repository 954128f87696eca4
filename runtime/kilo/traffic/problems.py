"""The gateway's own refusals as problem details (RFC 9457, ``application/problem+json``).

Answers of the services behind it pass unchanged. Every 429 and 503 carries ``Retry-After``
(RFC 9110, section 10.2.3): the limit's own computed value where there is one, otherwise a second.
"""

from __future__ import annotations

from kilo.traffic.xds import Json, typed

_TITLES = {
    400: "Bad Request",
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
_RETRY_AFTER = [
    {"header": {"key": "retry-after", "value": "1"}, "append_action": "ADD_IF_ABSENT"},
]


def render_local_replies() -> Json:
    """Render the connection manager's ``local_reply_config``."""
    return {
        "mappers": [_overloaded(), _rate_limited(), *(_problem(status) for status in _TITLES)],
        "body_format": _body(None),
    }


def _overloaded() -> Json:
    # Envoy's overload manager answers 503, as an upstream without healthy hosts would; to a client
    # the one means come back later, the other that the service is down.
    return {
        "filter": {
            "extension_filter": {
                "name": "envoy.access_loggers.extension_filters.cel",
                "typed_config": typed(
                    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    expression='response.code_details == "overload"',
                ),
            }
        },
        "status_code": 429,
        "headers_to_add": _RETRY_AFTER,
        "body_format_override": _body(429),
    }


def _rate_limited() -> Json:
    return {
        "filter": {"response_flag_filter": {"flags": ["RL"]}},
        "body_format_override": _body(
            429, "the tenant's limit is used up; try again after Retry-After seconds"
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
        reply["headers_to_add"] = _RETRY_AFTER
    return reply


def _body(status: int | None, detail: str = "%LOCAL_REPLY_BODY%") -> Json:
    return {
        "json_format": {
            "type": "about:blank",
            "title": _TITLES[status] if status else "Error",
            "status": status or "%RESPONSE_CODE%",
            "detail": detail,
        },
        "content_type": "application/problem+json",
    }
