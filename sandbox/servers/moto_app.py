"""The process of :class:`sandbox.servers.moto.MotoServer`: moto behind its journal, on a loopback port."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from sandbox.servers import determinism

SERVICES = ("s3", "kms", "sqs", "ecr", "iam", "sts", "secretsmanager", "events")
log = logging.getLogger(__name__)


def main() -> None:
    """Replay, then serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    determinism.install()
    serve(arguments.directory, arguments.port)


def serve(directory: Path, port: int) -> None:
    """Serve moto with the state under ``directory``."""
    # Imported late: moto must see the controlled clock.
    from moto.backends import get_backend  # noqa: PLC0415
    from moto.moto_api._internal import mock_random  # noqa: PLC0415
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415

    from sandbox.servers import moto_gaps  # noqa: PLC0415
    from sandbox.servers.journal import Journal  # noqa: PLC0415
    from sandbox.servers.moto_journal import DurableMoto  # noqa: PLC0415
    from sandbox.servers.push_events import PushEvents  # noqa: PLC0415

    for service in SERVICES:
        get_backend(service)  # type: ignore[call-overload]

    moto_gaps.fill()

    class Handler(MotoRequestHandler):
        # Keeps connections, and sends an answer's head and body without waiting for an acknowledgement.
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            super().setup()

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            pass

    journal = Journal(directory / "journal")
    application = DurableMoto(DomainDispatcherApplication(create_backend_app), journal, mock_random)
    started = time.monotonic()
    count = application.replay()
    log.info("%d changes replayed in %.1f s", count, time.monotonic() - started)
    server = make_server("127.0.0.1", port, PushEvents(application), threaded=True, request_handler=Handler)

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    log.info("serving on 127.0.0.1:%d", port)
    server.serve_forever()


if __name__ == "__main__":
    main()
