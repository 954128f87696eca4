"""The HTTP API as OpenAPI 3.1, from the rules that the entrance itself checks, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilo.ingest.limits import BATCH_BYTES
from kilo.ingest.request import FIELD_RULES, KEY_HEADER, KEY_RULE
from reference.tables import HEAD, table

PROBLEMS: Mapping[int, str] = {
    400: "A header is missing or is no header: `errors` names it.",
    401: "The gateway knows no such token.",
    403: "The stage has no such tenant, or the token is another's.",
    413: "The body is larger than the payload limit allows.",
    415: "The content type is none that is read.",
    422: "The event is not right, or its key was used for another content: `errors` names each place.",
    424: "Of a batch that is stored whole or not at all: another event was refused.",
    429: "No room, or the tenant's limit is used up (`limit` says which): come back after `Retry-After`.",
    503: "Nothing is known to be stored: send the same again, with the same key, after `Retry-After`.",
    504: "As 503.",
}


def openapi() -> dict[str, Any]:
    """The document."""
    fields = {
        name: {"type": "string", "pattern": f"^{pattern.pattern}$", "description": rule}
        for name, (pattern, rule) in FIELD_RULES.items()
    }
    words = "What happened; fields that the tenant's entry names are encrypted."
    members = {**fields, "payload": {"type": "object", "description": words}}
    event = {"type": "object", "required": [*fields, "payload"], "properties": members}
    more = {"key": {"type": "string", "description": KEY_RULE}, "traceparent": {"type": "string"}}
    line = {**event, "properties": {**members, **more}, "required": [*fields, "payload", "key"]}
    stored = {
        "type": "object",
        "properties": {"status": {"enum": ["accepted", "duplicate"]}, "fingerprint": {"type": "string"}},
    }
    tenant = {
        "name": "X-Tenant-Id",
        "in": "header",
        "required": True,
        "schema": {"type": "string"},
        "description": "The gateway sets it from the verified identity where the stage has one.",
    }
    key = {
        "name": KEY_HEADER,
        "in": "header",
        "required": True,
        "schema": {"type": "string"},
        "description": KEY_RULE,
    }
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in PROBLEMS}
    single = {name: each for name, each in refused.items() if name != "424"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Events over HTTP",
            "version": "1",
            "description": "For services without an outbox of their own.",
        },
        "paths": {
            "/v1/events": {
                "post": {
                    "operationId": "sendEvent",
                    "summary": "Send one event",
                    "parameters": [tenant, key],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Event"}}},
                    },
                    "responses": {
                        "201": _answer("New, and committed.", "Stored"),
                        "200": _answer("It was there already with the same content.", "Stored"),
                        **single,
                    },
                }
            },
            "/v1/events:batch": {
                "post": {
                    "operationId": "sendEvents",
                    "summary": f"Send at most 1,000 events and {BATCH_BYTES // 1024} KiB",
                    "parameters": [
                        tenant,
                        {
                            "name": "atomic",
                            "in": "query",
                            "schema": {"type": "boolean"},
                            "description": "All of at most 250 events are stored, or none.",
                        },
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/x-ndjson": {"schema": {"$ref": "#/components/schemas/EventLine"}},
                            "application/cloudevents-batch+json": {
                                "schema": {"type": "array", "items": {"type": "object"}}
                            },
                        },
                    },
                    "responses": {
                        "200": _answer("A result for each event, in their order.", "Results"),
                        **refused,
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "Event": event,
                "EventLine": line,
                "Stored": stored,
                "Results": {
                    "type": "object",
                    "properties": {
                        **{name: {"type": "integer"} for name in ("accepted", "duplicate", "failed")},
                        "results": {"type": "array", "items": {"type": "object"}},
                    },
                },
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string", "format": "uri-reference"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "limit": {"enum": ["tenant", "capacity", "gateway"]},
                        "errors": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    name: {"type": "string"} for name in ("pointer", "header", "detail")
                                },
                            },
                        },
                    },
                },
            },
            "responses": {str(status): _problem(status, words) for status, words in PROBLEMS.items()},
        },
    }


def _answer(words: str, schema: str) -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _problem(status: int, words: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    headers = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {
        "description": words,
        "content": content,
        **({"headers": headers} if status in {429, 503} else {}),
    }


def http_page(document: Mapping[str, Any]) -> str:
    """The page."""
    parts = [
        f"{HEAD}# HTTP API\n\n[Sending events over HTTP](../ingest.md) says how it is used. As OpenAPI 3.1: "
        "[openapi.json](openapi.json).\n"
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"\n## {method.upper()} {path}\n\n{operation['summary']}.\n\n")
            parts.append(
                table(
                    ["parameter", "in", "what it is"],
                    [
                        (f"`{each['name']}`", each["in"], each.get("description", ""))
                        for each in operation["parameters"]
                    ],
                )
            )
            parts.append(
                "\nThe body is one of: "
                + ", ".join(f"`{each}`" for each in operation["requestBody"]["content"])
                + ".\n"
            )
    event = document["components"]["schemas"]["Event"]
    parts.append("\n## An event\n\n")
    parts.append(
        table(
            ["member", "what it is"],
            [(f"`{name}`", each["description"]) for name, each in event["properties"].items()],
        )
    )
    parts.append(
        "\n## Problems\n\nWhat is not stored is answered as `application/problem+json` (RFC 9457).\n\n"
    )
    parts.append(
        table(["status", "what it means"], [(str(status), words) for status, words in PROBLEMS.items()])
    )
    return "".join(parts)
