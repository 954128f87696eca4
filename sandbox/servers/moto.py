"""The AWS APIs of the sandbox: a moto server that loses nothing it acknowledged.

moto keeps everything in memory; here each change is journalled before it is answered and replayed at
the next start (see :mod:`sandbox.servers.moto_journal`), so that keys, their material, objects, locks,
secrets, repositories, queues and messages survive a kill. Services outside of
:data:`sandbox.servers.moto_app.SERVICES` answer too, and their changes are journalled, but nothing proves
that theirs come back alike.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from sandbox.servers.http_server import HttpServer


class MotoServer(HttpServer):
    """The server; everything is replayed before it answers."""

    name = "aws"
    health = "/moto-api/"

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        program = [sys.executable, "-P", "-m", "sandbox.servers.moto_app"]
        return [*program, str(self.directory / "data"), str(self.port)]

    def environment(self) -> Mapping[str, str]:
        """Variables over this process's own."""
        return {"MOTO_PORT": str(self.port), "PYTHONHASHSEED": "0"}
