"""Bodies of many events: newline-delimited JSON, and CloudEvents' JSON batch format.

Each event has its own idempotency key: ``key`` in a line of NDJSON, ``SOURCE|ID`` of a CloudEvent, whose
``id`` is unique within its ``source`` (CloudEvents 1.0.2, "source" and "id"). A CloudEvent's ``type`` is the
kind, its ``subject`` is ``AGGREGATE/ID`` and its ``data`` the payload. Its ``time`` is not kept: an event's
time is that of its commit.

Formats: https://github.com/ndjson/ndjson-spec and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from kilo.contract import StackOutputs
from kilo.ingest.limits import BATCH_EVENTS
from kilo.ingest.request import KEY_RULE, CheckedEvent, Error, check_event, is_key, parse_object
from kilo.observe.tracing import parse_traceparent
from kilo.outbox import strict_json
from kilo.web.problem import Problem, refused

NDJSON = "application/x-ndjson"
CLOUDEVENTS = "application/cloudevents-batch+json"
_OTHER_NDJSON = ("application/ndjson", "application/jsonl")
_KNOWN = {
    *("specversion", "id", "source", "type", "subject", "data", "time", "datacontenttype"),
    *("traceparent", "tracestate"),
}
_SOURCE = re.compile(r"[!-{}~]{1,198}")

Checked = CheckedEvent | Problem
Reader = Callable[[bytes, str, StackOutputs], Iterator[Checked]]


def reader_of(content_type: str) -> tuple[Reader, str]:
    """What reads bodies of ``content_type``, and the member that an event's key comes from.

    Raises:
        Problem: nothing does.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == NDJSON or media_type in _OTHER_NDJSON:
        return read_lines, "key"
    if media_type == CLOUDEVENTS:
        return read_cloudevents, "id"
    detail = f"a batch is {NDJSON} or {CLOUDEVENTS}"
    raise refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"header": "Content-Type", "detail": detail})


def read_lines(body: bytes, tenant: str, outputs: StackOutputs) -> Iterator[Checked]:
    """The events of a body with one JSON object a line; empty lines are passed over."""
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    _check_count(len(lines))
    for number, line in enumerate(lines):
        pointer = f"#/{number}"
        try:
            document, errors = parse_object(line, pointer)
            if document is None:
                raise refused(HTTPStatus.BAD_REQUEST, *errors)
            key = document.pop("key", None)
            traceparent = _trace_of(document)
            if not is_key(key):
                errors = [{"pointer": f"{pointer}/key", "detail": KEY_RULE if key else "missing"}]
                key = ""
            yield check_event(
                document, tenant, key, outputs, errors=errors, pointer=pointer, traceparent=traceparent
            )
        except Problem as problem:
            yield problem


def read_cloudevents(body: bytes, tenant: str, outputs: StackOutputs) -> Iterator[Checked]:
    """The events of a body that is a JSON array of CloudEvents.

    Raises:
        Problem: it is not one.
    """
    try:
        documents = strict_json.parse(body)
    except strict_json.NotStrict as error:
        where = {"pointer": f"#{error.pointer}", "detail": error.problem}
        raise refused(HTTPStatus.BAD_REQUEST, where) from None
    if not isinstance(documents, list):
        raise refused(HTTPStatus.BAD_REQUEST, {"pointer": "#", "detail": "must be a JSON array"})
    _check_count(len(documents))
    # Each is let go once it was looked at: values take far more memory than their text.
    documents.reverse()
    number = 0
    while documents:
        try:
            yield _cloudevent(documents.pop(), f"#/{number}", tenant, outputs)
        except Problem as problem:
            yield problem
        number += 1


def _cloudevent(given: Any, pointer: str, tenant: str, outputs: StackOutputs) -> CheckedEvent:
    if not isinstance(given, dict):
        raise refused(HTTPStatus.BAD_REQUEST, {"pointer": pointer, "detail": "must be a JSON object"})
    errors: list[Error] = []

    def wrong(name: str, detail: str) -> None:
        errors.append({"pointer": f"{pointer}/{name}", "detail": detail})

    if given.get("specversion") != "1.0":
        wrong("specversion", 'must be "1.0"')
    if not isinstance(given.get("time", ""), str):
        wrong("time", "must be text (RFC 3339)")
    media_type = given.get("datacontenttype", "application/json")
    if not isinstance(media_type, str) or media_type.partition(";")[0].strip().lower() != "application/json":
        wrong("datacontenttype", "must be application/json or left out")
    source, own = given.get("source"), given.get("id")
    key = f"{source}|{own}"
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        wrong("source", "must be a URI reference")
    if not isinstance(own, str) or not own or not is_key(key):
        wrong("id", f"must be text, and SOURCE|ID {KEY_RULE}")
    subject = given.get("subject")
    aggregate, slash, aggregate_id = subject.partition("/") if isinstance(subject, str) else ("", "", "")
    if not slash:
        wrong("subject", "must be AGGREGATE/ID, such as order/42")
    for name in given.keys() - _KNOWN:
        wrong(name[:80], "unknown; put what belongs to the event into data")
    kind = given.get("type")
    if errors:
        raise refused(HTTPStatus.UNPROCESSABLE_ENTITY, *errors)
    document: dict[str, Any] = {
        "aggregate": aggregate,
        "aggregate_id": aggregate_id,
        "kind": kind,
        "payload": given.get("data"),
    }
    try:
        return check_event(
            document, tenant, key, outputs, errors=[], pointer=pointer, traceparent=_trace_of(given)
        )
    except Problem as problem:
        raise refused(problem.status, *[_as_given(error, pointer) for error in problem.errors]) from None


def _as_given(error: Mapping[str, str], pointer: str) -> Error:
    """The error by the CloudEvent's own names."""
    names = {"aggregate": "subject", "aggregate_id": "subject", "kind": "type", "payload": "data"}
    name, *rest = error["pointer"].removeprefix(f"{pointer}/").split("/", 1)
    detail = f"{name}: {error['detail']}" if names.get(name) == "subject" else error["detail"]
    return {"pointer": "/".join([pointer, names.get(name, name), *rest]), "detail": detail}


def _trace_of(document: dict[str, Any]) -> str | None:
    """The event's own trace; as W3C Trace Context says, one that is no such thing counts as none."""
    given = document.pop("traceparent", None)
    return given if isinstance(given, str) and parse_traceparent(given) else None


def _check_count(count: int) -> None:
    if not count:
        raise refused(HTTPStatus.BAD_REQUEST, {"pointer": "#", "detail": "holds no event"})
    if count > BATCH_EVENTS:
        detail = f"{count} events; at most {BATCH_EVENTS}"
        raise refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"pointer": "#", "detail": detail})
