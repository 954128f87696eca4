"""The answer to a batch: a result for each event, or why none of them is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from kilo.ingest.limits import AGAIN
from kilo.ingest.store import Result
from kilo.web.problem import Problem


def answer(
    fingerprints: Sequence[str | None], results: Sequence[Result], key_name: str, *, atomic: bool
) -> tuple[HTTPStatus, dict[str, Any], Mapping[str, str]]:
    """Status, document and headers.

    Args:
        fingerprints: of the events, as far as they have one.
        results: what became of each.
        key_name: the member of an event that its key comes from.
        atomic: whether none is stored when one isn't.
    """
    named = [
        _result(number, *each, key_name)
        for number, each in enumerate(zip(fingerprints, results, strict=True))
    ]
    counts = {
        "accepted": sum(result is True for result in results),
        "duplicate": sum(result is False for result in results),
        "failed": sum(isinstance(result, Problem) for result in results),
    }
    statuses = {result.status if isinstance(result, Problem) else None for result in results}
    if statuses == {HTTPStatus.SERVICE_UNAVAILABLE} or (
        atomic and HTTPStatus.SERVICE_UNAVAILABLE in statuses
    ):
        # So that whoever only looks at the status tries again.
        return HTTPStatus.SERVICE_UNAVAILABLE, _problem(HTTPStatus.SERVICE_UNAVAILABLE, counts, named), AGAIN
    if atomic and counts["failed"]:
        return HTTPStatus.UNPROCESSABLE_ENTITY, _problem(HTTPStatus.UNPROCESSABLE_ENTITY, counts, named), {}
    return HTTPStatus.OK, {**counts, "results": named}, {}


def _problem(status: HTTPStatus, counts: Mapping[str, int], named: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": "no event of the batch is stored; each result says why",
        **counts,
        "results": named,
    }


def _result(number: int, fingerprint: str | None, result: Result, key_name: str) -> dict[str, Any]:
    named: dict[str, Any] = {"index": number}
    if fingerprint is not None:
        named["fingerprint"] = fingerprint
    if not isinstance(result, Problem):
        return {**named, "status": "accepted" if result else "duplicate"}
    document = result.document()
    if "errors" in document:
        # What a single event has in a header, an event of a batch has in itself.
        document["errors"] = [
            {"pointer": f"#/{number}/{key_name}", "detail": error["detail"]} if "header" in error else error
            for error in document["errors"]
        ]
    return {**named, "status": "failed", "problem": document}
