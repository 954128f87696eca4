"""Free TCP ports on loopback addresses."""

from __future__ import annotations

import random
import socket

from kilo.errors import Unreachable

# Below the range from which Linux gives outgoing connections their ports (ip_local_port_range), where one
# of those could take a port between this look and the server's own bind.
_LOWEST, _HIGHEST = 20_000, 32_767
_TRIES = 1_000


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nothing listens on at ``address``.

    Raises:
        Unreachable: none was found.
    """
    for _ in range(_TRIES):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311  no secret
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    msg = f"{address}: no free port between {_LOWEST} and {_HIGHEST}: stop what listens on them"
    raise Unreachable(msg)
