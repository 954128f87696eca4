"""The AsyncAPI 3.0 document of a folder of schemas: what is sent and received, on which channels; pure.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilo.bus.cloudevents import CONTENT_TYPE
from kilo.schemas.folder import EventSchema

_SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"
_TEXT = {"type": "string"}
_HEADERS = {
    "type": "object",
    "required": ["tenant", "fingerprint", "kind", "aggregate-id", "created-at", "ce-id", "ce-type"],
    "properties": {
        "tenant": {**_TEXT, "description": "Whose event it is."},
        "fingerprint": {**_TEXT, "description": "Its idempotency key, one of the tenant's."},
        "kind": {**_TEXT, "description": "What happened."},
        "aggregate-id": {**_TEXT, "description": "Which thing; events of one keep their order."},
        "created-at": {**_TEXT, "format": "date-time"},
        "publisher": {"type": "string", "enum": ["worker", "cdc"]},
        "traceparent": {**_TEXT, "description": "W3C Trace Context."},
        "replay-of": {**_TEXT, "description": "Of a replay: the message id of the original delivery."},
        "ce-specversion": {"type": "string", "const": "1.0"},
        "ce-id": {**_TEXT, "description": "CloudEvents: TENANT/FINGERPRINT. On Kafka ce_id, and so on."},
        "ce-source": {"type": "string", "format": "uri-reference", "description": "/kilo/STAGE"},
        "ce-type": {**_TEXT, "description": "The kind."},
        "ce-subject": {**_TEXT, "description": "The aggregate id."},
        "ce-time": {**_TEXT, "format": "date-time"},
        "ce-tenant": _TEXT,
        "ce-traceparent": _TEXT,
        "content-type": {"type": "string", "const": CONTENT_TYPE},
    },
}


def render_asyncapi(
    schemas: Mapping[str, EventSchema], title: str, version: str, subject_prefix: str = "events"
) -> dict[str, Any]:
    """The document of ``schemas``.

    Args:
        schemas: by kind.
        title: of the service.
        version: of the service.
        subject_prefix: under which events are published, as the stage's outputs have it.
    """
    aggregates = sorted({each.aggregate for each in schemas.values()})
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            aggregate: {
                "address": f"{subject_prefix}.{aggregate}",
                "description": f"Events of {aggregate}; on Kafka the topic {subject_prefix}.",
                "messages": {
                    kind: {"$ref": f"#/components/messages/{kind}"}
                    for kind, each in schemas.items()
                    if each.aggregate == aggregate
                },
            }
            for aggregate in aggregates
        },
        "operations": {
            f"{action}-{aggregate}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{aggregate}"},
                "messages": [{"$ref": f"#/channels/{aggregate}/messages/{kind}"} for kind in kinds],
            }
            for aggregate in aggregates
            for action, role in (("send", "produced"), ("receive", "consumed"))
            if (
                kinds := [
                    kind for kind, each in schemas.items() if (each.aggregate, each.role) == (aggregate, role)
                ]
            )
        },
        "components": {
            "messages": {kind: _message(each) for kind, each in schemas.items()},
            "schemas": {"headers": _HEADERS},
        },
    }


def _message(schema: EventSchema) -> dict[str, Any]:
    document = schema.document
    return {
        "name": schema.kind,
        "title": document.get("title", schema.kind),
        "summary": document["description"],
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"schemaFormat": _SCHEMA_FORMAT, "schema": dict(document)},
        "examples": [{"payload": each} for each in document["examples"]],
    }
