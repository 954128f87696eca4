"""From a request to a checked event: everything that can be wrong with it is found and named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kilo.contract import StackOutputs
from kilo.ingest.problem import Problem, refused
from kilo.outbox import strict_json

KEY_HEADER = "Idempotency-Key"
_ENVELOPE_BYTES = 4096
"""What the rest of the body may take besides the payload."""

_FIELDS: Mapping[str, tuple[re.Pattern[str], str]] = {
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


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """An event that was found to be right; nothing of it is stored yet."""

    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: dict[str, Any]
    fingerprint: str
    traceparent: str | None = None


def body_limit(outputs: StackOutputs) -> int:
    """The largest body that is read, in bytes."""
    return outputs.outbox.payload_limit_bytes + _ENVELOPE_BYTES


def known_tenant(headers: Mapping[str, str], outputs: StackOutputs) -> str:
    """The tenant that the request names.

    Raises:
        Problem: it names none, or one that the stage does not have.
    """
    name = outputs.gateway.tenant_header
    tenant = headers.get(name.lower(), "")
    if not tenant:
        raise refused(HTTPStatus.BAD_REQUEST, {"header": name, "detail": "missing; it names the tenant"})
    if tenant not in outputs.tenants:
        raise refused(HTTPStatus.FORBIDDEN, {"header": name, "detail": f"tenant {tenant[:80]!r} is unknown"})
    return tenant


def check(headers: Mapping[str, str], body: bytes, outputs: StackOutputs) -> IncomingEvent:
    """Check a request.

    Args:
        headers: by lower-case name.
        body: the request's body, not longer than :func:`body_limit`.
        outputs: the stage's.

    Raises:
        Problem: what to answer when something is wrong.
    """
    tenant = known_tenant(headers, outputs)
    key, errors = _key(headers)
    try:
        document = strict_json.parse(body)
    except strict_json.NotStrict as error:
        where = {"pointer": f"#{error.pointer}", "detail": error.problem}
        raise refused(HTTPStatus.BAD_REQUEST, *errors, where) from error
    if not isinstance(document, dict):
        raise refused(HTTPStatus.BAD_REQUEST, *errors, {"pointer": "#", "detail": "must be a JSON object"})
    errors += _field_errors(document)
    payload = document.get("payload")
    errors += _payload_errors(payload, outputs, tenant)
    if errors:
        status = HTTPStatus.UNPROCESSABLE_ENTITY if key else HTTPStatus.BAD_REQUEST
        raise refused(status, *errors)
    return IncomingEvent(
        tenant=tenant,
        aggregate=document["aggregate"],
        aggregate_id=document["aggregate_id"],
        kind=document["kind"],
        payload=document["payload"],
        # Keys are a tenant's own; the fingerprint is unique over all tenants.
        fingerprint=f"{tenant}/{key}",
    )


def _key(headers: Mapping[str, str]) -> tuple[str, list[dict[str, str]]]:
    key = headers.get(KEY_HEADER.lower(), "")
    # draft-ietf-httpapi-idempotency-key-header has it as a quoted string; most clients send it bare.
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if _KEY.fullmatch(key):
        return key, []
    detail = "1 to 200 printable ASCII characters without spaces" if key else "missing; it makes a retry safe"
    return "", [{"header": KEY_HEADER, "detail": detail}]


def _field_errors(document: Mapping[str, Any]) -> list[dict[str, str]]:
    errors: list[dict[str, str]] = []
    for name, (pattern, rule) in _FIELDS.items():
        value = document.get(name)
        if name not in document:
            errors.append({"pointer": f"#/{name}", "detail": "missing"})
        elif not isinstance(value, str) or not pattern.fullmatch(value):
            errors.append({"pointer": f"#/{name}", "detail": f"must be {rule}"})
    known = {*_FIELDS, "payload"}
    errors += [
        {"pointer": f"#/{name[:80]}", "detail": f"unknown; a body has {', '.join(sorted(known))}"}
        for name in document
        if name not in known
    ]
    return errors


def _payload_errors(payload: Any, outputs: StackOutputs, tenant: str) -> list[dict[str, str]]:
    if not isinstance(payload, dict):
        return [{"pointer": "#/payload", "detail": "must be a JSON object"}]
    limit = outputs.outbox.payload_limit_bytes
    size = len(strict_json.write(payload).encode())
    if size > limit:
        return [{"pointer": "#/payload", "detail": f"{size} bytes of JSON; at most {limit}"}]
    encrypted = outputs.tenants[tenant].encrypted_fields
    return [
        {"pointer": f"#/payload{pointer}/{name}", "detail": "must be text: this field is stored encrypted"}
        for pointer, part in objects(payload)
        for name in encrypted
        if not isinstance(part.get(name), str | None)
    ]


def objects(payload: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every object inside ``payload`` with its JSON pointer, itself first."""
    found: list[tuple[str, dict[str, Any]]] = []
    waiting: list[tuple[str, Any]] = [("", payload)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, dict):
            found.append((pointer, value))
            waiting += [(f"{pointer}/{name}", each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{pointer}/{n}", each) for n, each in enumerate(value)]
    return found


__all__ = ["IncomingEvent", "Problem", "body_limit", "check", "known_tenant", "objects"]
