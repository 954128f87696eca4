"""Between the camelCase of a Pulumi schema and the PascalCase of the AWS APIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_api(value: Any, renamed: Mapping[str, str] | None = None) -> Any:
    """A value in the API's writing; ``renamed`` lists the names that are more than a capital letter."""
    if isinstance(value, dict):
        names = renamed or {}
        return {
            names.get(k) or k[:1].upper() + k[1:]: to_api(v, renamed)
            for k, v in value.items()
            if v is not None
        }
    if isinstance(value, list):
        return [to_api(item, renamed) for item in value]
    return value


def from_api(value: Any, renamed: Mapping[str, str] | None = None) -> Any:
    """The reverse of :func:`to_api`."""
    if isinstance(value, dict):
        names = {theirs: ours for ours, theirs in (renamed or {}).items()}
        return {names.get(k) or k[:1].lower() + k[1:]: from_api(v, renamed) for k, v in value.items()}
    if isinstance(value, list):
        return [from_api(item, renamed) for item in value]
    return value
