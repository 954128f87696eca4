"""CloudEvents 1.0 in binary mode, beside the platform's own headers: what other systems read and write.

On NATS attributes are headers ``ce-NAME``, percent-encoded; on Kafka ``ce_NAME``, as they are (the adapter
turns one into the other). In both, ``content-type`` is the attribute ``datacontenttype``.

=================  ==============================================================================
``id``             ``TENANT/FINGERPRINT``, the same at every delivery, replays too
``source``         ``/kilo/STAGE``: with ``id`` it names one event of all stages
``type``           the kind
``subject``        the aggregate id
``time``           when it was written into the outbox
``tenant``         whose it is; an extension of ours
``traceparent``    of its trace; the extension for distributed tracing
=================  ==============================================================================

Both publishers send the same, byte for byte. Debezium can't percent-encode, so the outbox has columns for it
(``ce_id`` and ``ce_subject``), which it takes on NATS.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

SPECIFICATION = "1.0"
CONTENT_TYPE = "application/json"
SOURCE = "/kilo"
"""Of events whose stage is not known, as in a service's own tests."""
PREFIX = "ce-"
KAFKA_PREFIX = "ce_"
COLUMNS = (
    ("message_id", "id"),
    ("kind", "type"),
    ("aggregate_id", "subject"),
    ("created_at", "time"),
    ("tenant", "tenant"),
    ("traceparent", "traceparent"),
)
"""Columns of the outbox and the attribute that each becomes; ``message_id`` is ``TENANT/FINGERPRINT``."""

_ENCODED = re.compile(r"[^!#$&-~]")


def source_of(stage: str) -> str:
    """The attribute ``source`` of a stage's events."""
    return f"{SOURCE}/{stage}"


def constants(source: str) -> dict[str, str]:
    """The headers that all events of ``source`` have alike."""
    return {f"{PREFIX}specversion": SPECIFICATION, f"{PREFIX}source": source, "content-type": CONTENT_TYPE}


def headers_of(source: str, attributes: Mapping[str, str | None]) -> dict[str, str]:
    """The headers of an event with these attributes."""
    given = {f"{PREFIX}{name}": encode(value) for name, value in attributes.items() if value is not None}
    return constants(source) | given


def encode(value: str) -> str:
    """``value`` with all but printable ASCII percent-encoded, and spaces, double quotes and percents."""
    return _ENCODED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the CloudEvent that ``headers`` describe, by name; empty when they describe none."""
    found = {
        name[len(PREFIX) :].lower(): unquote(value, errors="replace")
        for name, value in headers.items()
        if name[: len(PREFIX)].lower() == PREFIX
    }
    if not found.get("specversion", "").startswith("1."):
        return {}
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    return found | {"datacontenttype": kind} if kind else found


def to_kafka(name: str, value: str) -> tuple[str, str]:
    """A header as Kafka's binding has it."""
    if name.startswith(PREFIX):
        return KAFKA_PREFIX + name[len(PREFIX) :], unquote(value, errors="replace")
    return name, value


def from_kafka(name: str, value: str) -> tuple[str, str]:
    """The header that :func:`to_kafka` was given."""
    if name.startswith(KAFKA_PREFIX):
        return PREFIX + name[len(KAFKA_PREFIX) :], encode(value)
    return name, value
