"""A stage with a real database and real object stores by their protocols, and what signs for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from sandbox.servers.moto_gaps import fill
from tests.runtime.fle.conftest import AUDIT_KEY, PEOPLE, Stage, aws, stage

__all__ = ["AUDIT_KEY", "PEOPLE", "Stage", "aws", "stage"]


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """With the object locks that moto lacks."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    fill()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
