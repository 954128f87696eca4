"""From a request to a checked event: everything that can be wrong with it is found and named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kilo.contract import StackOutputs
from kilo.outbox import strict_json
from kilo.sensitive import inside
from kilo.web.problem import refused
from kilo.web.tenants import verified_tenant

KEY_HEADER = "Idempotency-Key"
_ENVELOPE_BYTES = 4096
"""What the rest of the body may take besides the payload."""

FIELD_RULES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "aggregate": (
        re.compile(r"[a-z][a-z0-9_-]{0,62}"),
        "a lower-case letter, then lower-case letters, digits, - and _; at most 63 characters",
    ),
    "aggregate_id": (re.compile(r"[!-~]{1,200}"), "1 to 200 printable ASCII characters without spaces"),
    "kind": (
        re.compile(r"[a-z][a-z0-9_.-]{0,126}"),
        "a lower-case letter, then lower-case letters, digits, ., - and _; at most 127 characters",
    ),
}
_KEY = re.compile(r"[!-~]{1,200}")
KEY_RULE = "1 to 200 printable ASCII characters without spaces"

Error = dict[str, str]


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """An event that was found to be right; nothing of it is stored yet."""

    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: dict[str, Any]
    text: str
    """The payload as JSON."""
    fingerprint: str
    traceparent: str | None = None
    """What the event itself says that it belongs to."""


@dataclass(frozen=True, slots=True)
class CheckedEvent:
    """An event, and what the configuration of today refuses of it.

    What an earlier configuration took is answered as it was then when it is sent again.
    """

    event: IncomingEvent
    refused: tuple[Error, ...] = ()


def body_limit(outputs: StackOutputs) -> int:
    """The largest body of one event that is read, in bytes."""
    return outputs.outbox.payload_limit_bytes + _ENVELOPE_BYTES


def known_tenant(headers: Mapping[str, str], outputs: StackOutputs) -> str:
    """The tenant that the request names.

    Raises:
        Problem: it names none, or one that the stage does not have.
    """
    name = outputs.gateway.tenant_header
    return verified_tenant(headers.get(name.lower(), ""), name, outputs.tenants)


def check(headers: Mapping[str, str], body: bytes, outputs: StackOutputs, tenant: str) -> CheckedEvent:
    """Check a request with one event.

    Args:
        headers: by lower-case name.
        body: the request's body, not longer than :func:`body_limit`.
        outputs: the stage's.
        tenant: whose request it is.

    Raises:
        Problem: what to answer when something is wrong.
    """
    key, errors = _header_key(headers)
    document, parsed = parse_object(body)
    if document is None:
        raise refused(HTTPStatus.BAD_REQUEST, *errors, *parsed)
    return check_event(document, tenant, key, outputs, errors=errors)


def parse_object(text: bytes, pointer: str = "#") -> tuple[dict[str, Any] | None, list[Error]]:
    """A JSON object at ``pointer``, or none and why."""
    try:
        document = strict_json.parse(text)
    except strict_json.NotStrict as error:
        return None, [{"pointer": f"{pointer}{error.pointer}", "detail": error.problem}]
    if not isinstance(document, dict):
        return None, [{"pointer": pointer, "detail": "must be a JSON object"}]
    return document, []


def check_event(
    document: Mapping[str, Any],
    tenant: str,
    key: str,
    outputs: StackOutputs,
    *,
    errors: list[Error],
    pointer: str = "#",
    traceparent: str | None = None,
) -> CheckedEvent:
    """Check one event's fields and payload.

    Args:
        document: the event as JSON, without its key.
        tenant: whose event it is.
        key: its idempotency key; empty when it has none that is right.
        outputs: the stage's.
        errors: what was found wrong before.
        pointer: where in the body the event is.
        traceparent: of the event itself.

    Raises:
        Problem: with everything that is wrong.
    """
    errors = errors + _field_errors(document, pointer)
    payload = document.get("payload")
    not_now: list[Error] = []
    text = ""
    if isinstance(payload, dict):
        text = strict_json.write(payload)
        not_now = _payload_errors(payload, text, outputs, tenant, pointer)
    else:
        errors.append({"pointer": f"{pointer}/payload", "detail": "must be a JSON object"})
    if errors:
        status = HTTPStatus.UNPROCESSABLE_ENTITY if key else HTTPStatus.BAD_REQUEST
        raise refused(status, *errors, *not_now)
    event = IncomingEvent(
        tenant=tenant,
        aggregate=document["aggregate"],
        aggregate_id=document["aggregate_id"],
        kind=document["kind"],
        payload=document["payload"],
        text=text,
        # Keys are a tenant's own, and every event's fingerprint is to be told from every other's.
        fingerprint=f"{tenant}/{key}",
        traceparent=traceparent,
    )
    return CheckedEvent(event, tuple(not_now))


def is_key(key: object) -> bool:
    """Whether ``key`` can be an idempotency key."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def _header_key(headers: Mapping[str, str]) -> tuple[str, list[Error]]:
    key = headers.get(KEY_HEADER.lower(), "")
    # draft-ietf-httpapi-idempotency-key-header has it as a quoted string; most clients send it bare.
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if is_key(key):
        return key, []
    return "", [{"header": KEY_HEADER, "detail": KEY_RULE if key else "missing; it makes a retry safe"}]


def _field_errors(document: Mapping[str, Any], place: str) -> list[Error]:
    errors: list[Error] = []
    for name, (pattern, rule) in FIELD_RULES.items():
        value = document.get(name)
        if name not in document:
            errors.append({"pointer": f"{place}/{name}", "detail": "missing"})
        elif not isinstance(value, str) or not pattern.fullmatch(value):
            errors.append({"pointer": f"{place}/{name}", "detail": f"must be {rule}"})
    if len(document) == len(FIELD_RULES) + 1 and "payload" in document and not errors:
        return errors
    known = {*FIELD_RULES, "payload"}
    errors += [
        {"pointer": inside(place, name[:80]), "detail": f"unknown; an event has {', '.join(sorted(known))}"}
        for name in document
        if name not in known
    ]
    return errors


def _payload_errors(
    payload: dict[str, Any], text: str, outputs: StackOutputs, tenant: str, place: str
) -> list[Error]:
    limit = outputs.outbox.payload_limit_bytes
    # A character has at most four bytes.
    size = len(text) if len(text) * 4 <= limit else len(text.encode())
    if size > limit:
        return [{"pointer": f"{place}/payload", "detail": f"{size} bytes of JSON; at most {limit}"}]
    encrypted = outputs.tenants[tenant].encrypted_fields
    if not encrypted:
        return []
    return [
        {
            "pointer": f"{place}/payload{inside(pointer[:400], name)}",
            "detail": "must be text: this field is stored encrypted",
        }
        for pointer, part in _objects(payload)
        for name in encrypted
        if not isinstance(part.get(name), str | None)
    ]


def _objects(payload: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every object inside ``payload`` with its JSON pointer, itself first."""
    found: list[tuple[str, dict[str, Any]]] = []
    waiting: list[tuple[str, Any]] = [("", payload)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, dict):
            found.append((pointer, value))
            waiting += [(inside(pointer, name), each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{pointer}/{n}", each) for n, each in enumerate(value)]
    return found
