"""How a stage's configuration is changed, so that it has a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
Change = Callable[[Config], None]
Mistakes = dict[str, tuple[str, Change, str, str]]
"""By name: the stage, the change that makes the mistake, the path that is named, and what is said of it."""


def put(path: str, value: object) -> Change:
    """A change of the configuration: ``kilo:bus.replicas`` and the like; integers index lists."""

    def change(config: Config) -> None:
        *parents, last = path.split(".")
        place: Any = config
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        place[int(last) if last.isdigit() else last] = value

    return change


def drop(path: str) -> Change:
    def change(config: Config) -> None:
        *parents, last = path.split(".")
        place: Any = config
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        del place[last]

    return change
