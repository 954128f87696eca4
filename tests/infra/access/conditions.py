"""Conditions of policies: operators, sets, what is missing, wildcards and variables.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

Context = Mapping[str, str | Sequence[str]]
"""Condition keys in lower case, each with a value or many."""

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_LITERAL = {"*": "*", "?": "?", "$": "$"}


def wild(pattern: str, value: str) -> bool:
    """Whether ``value`` is of ``pattern``: ``*`` and ``?`` are special; a backslash makes them plain."""
    parts: list[str] = re.findall(r"\\[*?\\]|.", pattern, re.DOTALL)
    signs = {"*": ".*", "?": "."}
    expression = "".join(signs.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def filled(text: str, context: Context) -> str | None:
    """``text`` with its policy variables filled in as plain characters; ``None`` when one has no value."""
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        name, _, default = (part.strip() for part in found[1].partition(","))
        if name in _LITERAL:
            return f"\\{name}" if name in "*?" else name
        known = context.get(name.lower(), default.strip("'") if default else None)
        if not isinstance(known, str):
            missing = True
            return ""
        return re.sub(r"([*?\\])", r"\\\1", known)

    shown = _VARIABLE.sub(value, text)
    return None if missing else shown


def met(conditions: Mapping[str, Mapping[str, Any]], context: Context, *, variables: bool) -> bool:
    """Whether every operator holds for every key of it."""
    return all(
        _holds(operator, context.get(key.lower()), expected, context, variables=variables)
        for operator, keys in conditions.items()
        for key, expected in keys.items()
    )


def _holds(
    operator: str, actual: str | Sequence[str] | None, expected: Any, context: Context, *, variables: bool
) -> bool:
    quantifier, _, bare = operator.rpartition(":")
    name = bare.removesuffix("IfExists")
    wanted = [_text(value) for value in listed(expected)]
    if name == "Null":
        return (actual is None) == (wanted == ["true"])
    if name not in _OPERATORS:
        msg = f"no condition operator is called {operator}"
        raise ValueError(msg)
    if quantifier not in {"", "ForAnyValue", "ForAllValues"}:
        msg = f"no set operator is called {quantifier}"
        raise ValueError(msg)
    negated = name in _NEGATED
    if actual is None:
        return bare.endswith("IfExists") or negated or quantifier == "ForAllValues"
    values = [actual] if isinstance(actual, str) else list(actual)
    if variables:
        wanted = [text for each in wanted if (text := filled(each, context)) is not None]
    compare = _OPERATORS[name]

    def one(value: str) -> bool:
        return any(compare(value, each) for each in wanted) != negated

    if quantifier == "ForAllValues":
        return all(one(value) for value in values)
    if quantifier == "" and len(values) > 1 and negated:
        return all(one(value) for value in values)
    return any(one(value) for value in values)


def listed(value: Any) -> list[Any]:
    """What may be one or many, as many."""
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(text: str) -> str:
    return re.sub(r"\\([*?\\])", r"\1", text)


def _arn(value: str, pattern: str) -> bool:
    parts, wanted = value.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(wanted) == 6 and all(
        wild(one, part) for one, part in zip(wanted, parts, strict=True)
    )


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _within(value: str, network: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(network)


_POSITIVE: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == _plain(wanted),
    "StringEqualsIgnoreCase": lambda value, wanted: value.lower() == _plain(wanted).lower(),
    "StringLike": lambda value, wanted: wild(wanted, value),
    "ArnEquals": _arn,
    "ArnLike": _arn,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
    "NumericLessThan": lambda value, wanted: float(value) < float(wanted),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
    "NumericGreaterThan": lambda value, wanted: float(value) > float(wanted),
    "NumericGreaterThanEquals": lambda value, wanted: float(value) >= float(wanted),
    "DateLessThan": lambda value, wanted: _moment(value) < _moment(wanted),
    "DateGreaterThan": lambda value, wanted: _moment(value) > _moment(wanted),
    "IpAddress": _within,
}
_NEGATED: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "NotIpAddress": "IpAddress",
}
_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    **_POSITIVE,
    **{negative: _POSITIVE[positive] for negative, positive in _NEGATED.items()},
}
