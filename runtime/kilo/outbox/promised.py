"""Holds what is written to the schemas of the service's events, where ``KILO_EVENT_SCHEMAS`` names them."""

from __future__ import annotations

import os
from pathlib import Path

from kilo.environment import EVENT_SCHEMAS_VARIABLE
from kilo.outbox import strict_json


def check_promised(aggregate: str, kind: str, payload: str) -> None:
    """Refuse an event that its schema does not allow; without schemas nothing is checked.

    Raises:
        BadInput: there is no schema of its kind, or the payload is not what it says.
    """
    folder = os.environ.get(EVENT_SCHEMAS_VARIABLE)
    if folder:
        # Only whoever asks for it needs the library.
        from kilo.schemas import load_folder  # noqa: PLC0415

        # As text, since that is what consumers get: a float of Python's is a decimal number there.
        load_folder(Path(folder)).check_written(kind, aggregate, strict_json.parse(payload))
