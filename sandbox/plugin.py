"""Serves one of the engine's plugins: a language host or a provider."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

_MESSAGE_BYTES = 400 * 1024 * 1024


def serve(register: Callable[[grpc.Server], None], *, threads: int) -> NoReturn:
    """Serve what ``register`` adds until the engine goes away, and end the process then.

    The port is the first line on standard output, as the engine expects of a plugin.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    parent = os.getppid()
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ]
    server = grpc.server(ThreadPoolExecutor(threads), options=options)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    # A killed engine closes nothing; becoming an orphan is the only sign of it.
    while not stopped.wait(1) and os.getppid() == parent:
        pass
    server.stop(grace=None)
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine ends its plugins one after the other and calls each that it did not hear from within five
    # seconds in all a crash. Taking an interpreter down that holds an SDK is seconds on a busy machine.
    os._exit(0)
