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
