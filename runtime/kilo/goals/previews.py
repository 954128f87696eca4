"""Records of services that were made from the template and previewed.

A record is a JSON file in ``.kilo/previews``: what bringing the preview up said as JSON: the ``service``, the
``seconds`` that it took, and ``checks``, each with its name and its ``state``. Its time is ``ended_at``
(seconds since the epoch) or else the file's own. It outlives the preview.
"""

from __future__ import annotations

import json
import os
import time
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


def keep_preview(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write the record of a preview that was just tried, whole or not at all; a service has its newest.

    Args:
        folder: ``.kilo/previews`` of the checkout.
        document: what bringing it up says as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{document['service']}.json"
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(json.dumps({**document, "ended_at": time.time()}, indent=2), encoding="utf-8")
    return beside.replace(file)
