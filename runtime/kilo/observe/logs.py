"""How processes log: lines for a person on a terminal, JSON lines where ``KILO_LOG=json``.

A JSON line has the fields of :data:`FIELDS` and no others, whatever a record carries besides: what is not
declared can't leak. Trace, tenant and fingerprint are those of the span around the call
(:mod:`kilo.observe.spans`). Messages lose the credentials of URLs, in both forms, and what says of itself
that it is one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

LOG_VARIABLE = "KILO_LOG"
"""``json`` for JSON lines; anything else for lines that a person reads."""

FIELDS: Mapping[str, str] = {
    "time": "when, in UTC with microseconds",
    "level": "DEBUG, INFO, WARNING, ERROR or CRITICAL",
    "logger": "the module that speaks",
    "message": "what it says, on one line",
    "trace_id": "the trace that it belongs to, 32 hexadecimal digits",
    "tenant": "whose work it was",
    "fingerprint": "the event that it was about",
    "error": "the exception with its traceback",
}
"""Every field that a JSON line may have, and what it means; those without a value are left out."""

LONGEST = 8192
"""Characters of a message and of an error; what is longer is cut."""

around: ContextVar[Mapping[str, str]] = ContextVar("around", default=MappingProxyType({}))
"""``trace_id``, ``tenant`` and ``fingerprint`` of the work that is done now, as far as they are known."""

# Each pattern begins with what is rare or takes what it looked at: a record as long as a document, from a
# process that serves others, costs time by its length and not by its square.
_IN_URL = re.compile(r"://[^\s'\"]*")
_CREDENTIALS = (
    (
        re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
        r"\1 …",
    ),
    (
        re.compile(
            r"\b(password|passwd|secret|token|authorization|api[-_]?key)(['\"]?\s*[=:]\s*)"
            r"(?:'[^']*'|\"[^\"]*\"|[^\s,;&]+)",
            re.IGNORECASE,
        ),
        r"\1\2…",
    ),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        "…",
    ),
)


def without_credentials(text: str) -> str:
    """``text`` with ``…`` in place of what is a credential by its form."""
    text = _IN_URL.sub(_without_user, text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def _without_user(found: re.Match[str]) -> str:
    # A password that was not percent-encoded may hold slashes and an @ itself: up to the last @ of the word.
    _, at, rest = found[0].rpartition("@")
    return f"://…@{rest}" if at else found[0]


class JsonLines(logging.Formatter):
    """One JSON object a line, of the declared fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        values: dict[str, str | None] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_credentials(record.getMessage())[:LONGEST],
            **around.get(),
            "error": without_credentials(self.formatException(record.exc_info))[-LONGEST:]
            if record.exc_info and record.exc_info[0]
            else None,
        }
        return json.dumps({field: values[field] for field in FIELDS if values.get(field)})


class Lines(logging.Formatter):
    """A line for a person; of an exception, its traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return without_credentials(super().format(record))


def start_logging() -> None:
    """Log to standard error, warnings of libraries and everything of the platform's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if os.environ.get(LOG_VARIABLE) == "json" else Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("kilo").setLevel(logging.INFO)
