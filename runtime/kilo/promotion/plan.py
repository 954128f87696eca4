"""The images that a saved plan of the engine would run from the stages' mirrored registries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from kilo.errors import BadInput
from kilo.promotion.parity import RegistryLocation


def images_of(plan: Path, places: Sequence[RegistryLocation]) -> list[str]:
    """Find every image below one of the registries, by its name there, each once.

    Args:
        plan: what ``pulumi preview --save-plan`` wrote; what a plan leaves as it is stands not in it.
        places: the registries.

    Raises:
        BadInput: the file can't be read, or is no JSON.
    """
    try:
        document = json.loads(plan.read_bytes())
    except OSError as error:
        msg = f"{plan}: can't be read ({error.strerror})"
        raise BadInput(msg) from error
    except ValueError as error:
        msg = f"{plan}: not JSON; a plan of `pulumi preview --save-plan` is expected"
        raise BadInput(msg) from error
    prefixes = [f"{place.url}/" for place in places]
    found = {
        value.removeprefix(prefix)
        for value in images_in(document)
        for prefix in prefixes
        if value.startswith(prefix)
    }
    return sorted(found)


def images_in(value: object) -> Iterator[str]:
    """What stands under ``image``, however deep."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key == "image" and isinstance(member, str):
                yield member
            else:
                yield from images_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from images_in(member)
