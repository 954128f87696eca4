"""Records of services that were made from the template and previewed.

A record is a JSON file in ``.kilo/previews``: what bringing the preview up said as JSON: the ``service``, the
``seconds`` that it took, and ``checks``, each with its name and its ``state``. Its time is ``ended_at``
(seconds since the epoch) or else the file's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LARGEST_BYTES = 1_000_000


def read_previews(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """The records of a folder, the newest last; what is no record is left out, and so counts for nothing."""
    found: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            if path.stat().st_size > _LARGEST_BYTES:
                continue
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("ended_at", 0), int | float):
            found.append({"ended_at": path.stat().st_mtime, **record})
    return tuple(sorted(found, key=lambda record: record["ended_at"]))
