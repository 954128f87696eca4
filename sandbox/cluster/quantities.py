"""Quantities and percentages as Kubernetes writes them.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_QUANTITY = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")


_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def is_quantity(value: object) -> bool:
    """Whether ``value`` is a quantity: a number with a decimal or binary suffix or an exponent."""
    return isinstance(value, str | int | float) and _QUANTITY.fullmatch(str(value)) is not None


def quantity(text: str) -> Decimal:
    """A quantity's value."""
    for power, suffix in enumerate(_BINARY, start=1):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * 1024**power
    last = text[-1:]
    if last in _SUFFIXES and last:
        return Decimal(text[:-1]).scaleb(_SUFFIXES[last])
    return Decimal(text)


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """A count, or a percentage of ``total`` rounded ``up`` or down, as maxSurge and maxUnavailable are."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)
