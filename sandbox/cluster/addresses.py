"""Loopback addresses of pods and Services.

Every pod has an address of its own, every Service too, as in a cluster; on Linux all of 127.0.0.0/8 is
there without any setting up. Pods have 127.(64+B).0.0/16, Services 127.(96+B).0.0/16, where B is the
sandbox's block, so that several sandboxes run side by side. An address belongs to a name for as long as
the name is used, and a Service's is chosen the first time anything mentions its name, so that what is
started before it can already be told. Addresses outlive the daemon in one file.
"""

from __future__ import annotations

import json
import socket
import zlib
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from kilo.errors import Unreachable

BLOCKS = 32
_PODS, _SERVICES = int(IPv4Address("127.64.0.0")), int(IPv4Address("127.96.0.0"))
_SIZE = 1 << 16


class Addresses:
    """The addresses handed out, kept in ``path``.

    Raises:
        Unreachable: another sandbox has the block of the addresses in ``path``, or all blocks are taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_name: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._block = self._claim_block()

    def pod(self, namespace: str, name: str) -> str:
        """The pod's address."""
        return self._of(f"pod/{namespace}/{name}", _PODS)

    def service(self, namespace: str, name: str) -> str:
        """The Service's address."""
        return self._of(f"service/{namespace}/{name}", _SERVICES)

    def release_pod(self, namespace: str, name: str) -> None:
        """The pod is gone for good."""
        if self._by_name.pop(f"pod/{namespace}/{name}", None):
            self._save()

    def release_namespace(self, namespace: str) -> None:
        """The namespace is gone, and with it every name in it."""
        kept = {name: one for name, one in self._by_name.items() if name.split("/")[1] != namespace}
        if len(kept) != len(self._by_name):
            self._by_name = kept
            self._save()

    def close(self) -> None:
        """Let another sandbox have the block."""
        self._claim.close()

    def _claim_block(self) -> int:
        if self._by_name:
            block = int(next(iter(self._by_name.values())).split(".")[1]) % BLOCKS
            if self._try_claim(block):
                return block
            msg = f"{self._path}: its addresses are in use by another sandbox; stop that one (kilo down)"
            raise Unreachable(msg)
        first = zlib.crc32(str(self._path.resolve()).encode())
        for step in range(BLOCKS):
            if self._try_claim((first + step) % BLOCKS):
                return (first + step) % BLOCKS
        msg = f"{BLOCKS} sandboxes run here and there are addresses for no more; stop one (kilo down)"
        raise Unreachable(msg)

    def _try_claim(self, block: int) -> bool:
        # A name in Linux's abstract namespace goes with the process that bound it, however that ends.
        with suppress(OSError):
            self._claim.bind(f"\0kilo-sandbox-addresses-{block}")
            return True
        return False

    def _of(self, name: str, base: int) -> str:
        if name not in self._by_name:
            self._by_name[name] = self._choose(base + self._block * _SIZE)
            self._save()
        return self._by_name[name]

    def _choose(self, base: int) -> str:
        used = {int(IPv4Address(address)) for address in self._by_name.values()}
        mine = [number - base for number in used if base <= number < base + _SIZE]
        # After the latest, so that connections that linger on a released address meet nobody new.
        offset = max(mine, default=0) + 1
        while base + offset in used or offset >= _SIZE - 1:
            offset = 1 if offset >= _SIZE - 1 else offset + 1
        return str(IPv4Address(base + offset))

    def _save(self) -> None:
        beside = self._path.with_name(f".{self._path.name}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(self._by_name, indent=1))
        beside.replace(self._path)
