"""Loopback addresses of pods and Services, and the names that stand for them.

Every pod has an address of its own, every Service too, as in a cluster; on Linux all of 127.0.0.0/8 is
there without any setting up. An address belongs to a name for as long as the name is used, and a Service's
is chosen the first time anything mentions its name, so that what is started before it can already be told.
Addresses outlive the daemon in one file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

_POD_RANGE = (int(IPv4Address("127.64.0.1")), int(IPv4Address("127.95.255.254")))
_SERVICE_RANGE = (int(IPv4Address("127.96.0.1")), int(IPv4Address("127.127.255.254")))


class Addresses:
    """The addresses handed out, kept in ``path``.

    Args:
        path: of the file.
        answers: whether something of another owner's already listens there; such an address is passed over.
    """

    def __init__(self, path: Path, taken: Callable[[str], bool] = lambda _: False) -> None:
        self._path = path
        self._taken = taken
        self._by_name: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def pod(self, namespace: str, name: str) -> str:
        """The pod's address."""
        return self._of(f"pod/{namespace}/{name}", _POD_RANGE)

    def service(self, namespace: str, name: str) -> str:
        """The Service's address."""
        return self._of(f"service/{namespace}/{name}", _SERVICE_RANGE)

    def release_pod(self, namespace: str, name: str) -> None:
        """The pod is gone for good."""
        if self._by_name.pop(f"pod/{namespace}/{name}", None):
            self._save()

    def _of(self, name: str, bounds: tuple[int, int]) -> str:
        if name not in self._by_name:
            self._by_name[name] = self._choose(bounds)
            self._save()
        return self._by_name[name]

    def _choose(self, bounds: tuple[int, int]) -> str:
        first, last = bounds
        used = {int(IPv4Address(address)) for address in self._by_name.values()}
        mine = [number for number in used if first <= number <= last]
        # After the latest, so that connections that linger on a released address meet nobody new.
        candidate = max(mine, default=first - 1) + 1
        while candidate in used or candidate > last or self._taken(str(IPv4Address(candidate))):
            candidate = first if candidate >= last else candidate + 1
        return str(IPv4Address(candidate))

    def _save(self) -> None:
        beside = self._path.with_name(f".{self._path.name}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(self._by_name, indent=1))
        beside.replace(self._path)
