"""Problem details (RFC 9457): what was wrong with a request, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

_MOST_ERRORS = 20
"""That one answer names: a body of mistakes must not become a larger answer."""


class Problem(Exception):
    """A request that is answered with problem details.

    Args:
        status: the HTTP status.
        detail: what was wrong with this request, for a person.
        errors: one entry a mistake, with ``pointer`` into the body (RFC 6901) or ``header``, and ``detail``.
        headers: more response headers.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), headers

    def document(self) -> dict[str, Any]:
        """The problem as a JSON object."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return body

    def response(self) -> Response:
        """The response."""
        return Response(
            # Half a surrogate pair, which a client's text can hold, stays the escape that it was.
            json.dumps(self.document(), ensure_ascii=False).encode(errors="backslashreplace"),
            status_code=self.status.value,
            media_type="application/problem+json",
            headers=dict(self.headers or {}),
        )


def refused(status: HTTPStatus, *errors: Mapping[str, str]) -> Problem:
    """A problem whose detail is made of ``errors``, each with its place."""
    named = errors[:_MOST_ERRORS]
    detail = "; ".join(f"{_place(error)}: {error['detail']}" for error in named)
    if len(errors) > len(named):
        detail += f"; and {len(errors) - len(named)} more"
    return Problem(status, detail, named)


def _place(error: Mapping[str, str]) -> str:
    if "header" in error:
        return f"header {error['header']}"
    return error["pointer"].lstrip("#/").replace("/", ".") or "body"
