"""Refusals in the API server's own form.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cause:
    """One field that is wrong."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class ApiError(Exception):
    """A request that the API server refuses, with what it answers."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        kind: str = "",
        name: str = "",
        causes: Sequence[Cause] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self._details: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "causes": [vars(cause) for cause in causes],
        }

    def status(self) -> dict[str, Any]:
        """The ``Status`` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": {name: value for name, value in self._details.items() if value},
            "code": self.code,
        }


def invalid(kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """The object's fields are wrong; all of them at once."""
    listed = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
    return ApiError(
        422, "Invalid", f'{kind} "{name}" is invalid: {listed}', kind=kind, name=name, causes=causes
    )


def not_found(plural: str, name: str) -> ApiError:
    """There is no such object."""
    return ApiError(404, "NotFound", f'{plural} "{name}" not found', kind=plural, name=name)


def bad_request(message: str) -> ApiError:
    """The request can't be understood."""
    return ApiError(400, "BadRequest", message)


def forbidden(plural: str, name: str, why: str) -> ApiError:
    """The request is understood and not allowed."""
    return ApiError(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}', kind=plural, name=name)


def conflict(plural: str, name: str, why: str) -> ApiError:
    """The object is not in a state in which this can be done."""
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": {why}', name=name)
