"""Quantities and percentages as Kubernetes writes them.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re

_QUANTITY = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")


def is_quantity(value: object) -> bool:
    """Whether ``value`` is a quantity: a number with a decimal or binary suffix or an exponent."""
    return isinstance(value, str | int | float) and _QUANTITY.fullmatch(str(value)) is not None


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """A count, or a percentage of ``total`` rounded ``up`` or down, as maxSurge and maxUnavailable are."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)
