"""Marks of runs that made no backup, in the stores that still take something.

A run that fails leaves no backup to look at, and a finished Job can't be scraped. Its mark says when and
what kind of error it was; the words of the error stay in the log, since the stores are trusted with
nothing. A run that is killed, or reaches no store, leaves none: then the age of the last backup tells.
"""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from kilo.backup.stores import Store
from kilo.errors import KiloError

FAILURES = "failures/"
_KEY = re.compile(r"failures/(?P<at>\d{8}T\d{6}Z)-[0-9a-f]{6}\.json")
_FORMAT = "%Y%m%dT%H%M%SZ"
log = logging.getLogger(__name__)


def mark_failure(stores: Mapping[str, Store], error: KiloError) -> None:
    """Leave a mark in every store that takes it."""
    now = datetime.now(UTC)
    key = f"{FAILURES}{now:{_FORMAT}}-{secrets.token_hex(3)}.json"
    content = json.dumps({"at": now.isoformat(timespec="seconds"), "error": type(error).__name__})
    for store in stores.values():
        try:
            store.create(key, io.BytesIO(content.encode()))
        except (KiloError, KeyError) as denied:
            log.debug("no mark left: %s", denied)


def failed_at(key: str) -> float:
    """When the run failed whose mark lies under ``key``, in seconds since the epoch; 0 for another key."""
    found = _KEY.fullmatch(key)
    return datetime.strptime(found["at"], _FORMAT).replace(tzinfo=UTC).timestamp() if found else 0.0
