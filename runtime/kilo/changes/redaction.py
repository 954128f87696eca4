"""Takes account identifiers and secret-looking values out of what is shown to reviewers."""

from __future__ import annotations

import re

_RULES = (
    # An AWS account id, by itself or inside an ARN or a registry's host name.
    (re.compile(r"(?<![0-9A-Za-z])[0-9]{12}(?![0-9A-Za-z])"), "************"),
    # A Google project number inside a resource name.
    (re.compile(r"(?<=projects/)[0-9]+"), "********"),
    # Credentials inside a URL, RFC 3986 section 3.2.1.
    (re.compile(r"(?<=://)[^/\s@]+@"), "[secret]@"),
    (re.compile(r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}"), "[secret]"),
    # Tokens, by what their vendors begin them with.
    (
        re.compile(
            r"\b(?:gh[pousr]_[0-9A-Za-z]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeoprs]-[\w-]{10,}"
            r"|xapp-[\w-]{10,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|[rs]k_(?:live|test)_[0-9A-Za-z]{10,}"
            r"|whsec_[0-9A-Za-z+/]{10,}|npm_[0-9A-Za-z]{30,}|pypi-[\w-]{16,}|pul-[0-9a-f]{40})"
        ),
        "[secret]",
    ),
    # A JSON Web Token: two parts that begin as JSON objects do, and a signature that may be empty.
    (re.compile(r"\beyJ[\w-]{5,}\.eyJ[\w-]{5,}\.[\w-]*"), "[secret]"),
    # Webhooks are secrets by their path alone.
    (
        re.compile(
            r"(https://(?:hooks\.slack(?:-gov)?\.com|(?:\w+\.)?discord(?:app)?\.com/api/webhooks"
            r"|[\w-]+\.webhook\.office\.com|hooks\.zapier\.com|events\.pagerduty\.com/integration"
            r"|chat\.googleapis\.com/v1/spaces)/)[^\s\"'<>\\]+"
        ),
        r"\1[secret]",
    ),
    # What a setting's name says is secret: password=…, AWS_ACCESS_KEY=…, Authorization: Bearer …
    (
        re.compile(
            r"(\b(?:[\w-]*[_-])?(?:password|passwd|pwd|passphrase|secret|api[_-]?key|access[_-]?key|token)"
            r"\s*=\s*)(?!\[secret\])(\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'&;,<>\\]+)",
            re.IGNORECASE,
        ),
        r"\1[secret]",
    ),
    (
        re.compile(r"(\bauthorization\s*[:=]\s*\"?(?:bearer|basic)\s+)[^\s\"',]+", re.IGNORECASE),
        r"\1[secret]",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        "[secret]",
    ),
)


def redact(text: str) -> str:
    """``text`` without account ids, project numbers, credentials and private keys."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
