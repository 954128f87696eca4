"""A killed engine whose files are whole; one whose files are torn is in ``tests/sandbox/engine``."""

from __future__ import annotations

from pathlib import Path

from sandbox.servers.moto import MotoServer
from tests.sandbox.engine.test_killed_engine import server, the_next_update_finishes

__all__ = ["server"]


def test_the_next_update_finishes(tmp_path: Path, server: MotoServer) -> None:
    the_next_update_finishes(tmp_path, server, torn=False)
