"""Free TCP ports on loopback addresses."""

from __future__ import annotations

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nothing listens on at ``address``, as the kernel gives it."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]
