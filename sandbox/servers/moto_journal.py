"""Makes moto durable: every request that changed something is journalled before it is answered.

At a start the journal is replayed, request by request, each at its own time and with its own seed, so
that everything comes back as it was, key ids, key material, version ids and dates included. Requests
take turns, since moto is one interpreter's work anyway and replay needs their order; only a wait for
messages waits outside of the turn. RSA keys are refused: their material comes from a C library and could
not be replayed.
"""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.servers.determinism import moment
from sandbox.servers.journal import Journal
from sandbox.servers.moto_gaps import SIGNING_SPECS

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# What only reads, by the AWS APIs' own naming; and what leaves nothing behind in spite of its name.
_READS = re.compile(
    r"(Describe|Get|List|Lookup|Search|BatchGet|BatchCheck|Test|Simulate|Head|Validate"
    r"|Encrypt|Decrypt|ReEncrypt|GenerateDataKey|GenerateRandom|GenerateMac|Sign|Verify)"
)
_RECEIVE = "ReceiveMessage"
# A hidden message comes back by time alone, which nothing announces.
_POLL_SECONDS = 0.5
_KEPT = ("SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", *SIGNING_SPECS)


class DurableMoto:
    """A WSGI application around moto's.

    Args:
        application: moto's.
        journal: where changes go.
        generators: moto's own sources of chance.
    """

    def __init__(self, application: Application, journal: Journal, *generators: Any) -> None:
        self._application = application
        self._journal = journal
        self._generators = generators
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._changes = 0

    def replay(self) -> int:
        """Bring back what the journal holds; answers with the number of requests."""
        count = 0
        for record in self._journal.replay():
            head, _, body = record.partition(b"\n")
            entry = json.loads(head)
            with moment(entry["at"], bytes.fromhex(entry["seed"]), *self._generators):
                self._call(entry["environ"], body)
            count += 1
        return count

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, once what it changed is on disk."""
        body = _read_body(environ)
        action = _action(environ, body)
        if refused := _refusal(action, body):
            start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
            return [refused]
        if action == _RECEIVE:
            status, headers, answer = self._receive(environ, body)
        elif _is_read(environ, action):
            with self._turn:
                status, headers, answer = self._call(environ, body)
        else:
            status, headers, answer = self._change(environ, body)
        start_response(status, headers)
        return [answer]

    def _change(
        self, environ: Environ, body: bytes, keep: Callable[[bytes], bool] = lambda _: True
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        position = None
        with self._turn:
            at, seed = time.time(), os.urandom(32)
            with moment(at, seed, *self._generators):
                status, headers, answer = self._call(environ, body)
            if int(status[:3]) < 400 and keep(answer):
                kept = {name: value for name, value in environ.items() if _is_kept(name, value)}
                entry = {"at": at, "seed": seed.hex(), "environ": kept}
                position = self._journal.append(json.dumps(entry).encode() + b"\n" + body)
        if position is not None:
            self._journal.flush(position)
            with self._changed:
                self._changes += 1
                self._changed.notify_all()
        return status, headers, answer

    def _receive(self, environ: Environ, body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        """Wait outside of the turn; what was received is journalled, since its receipt must stay valid."""
        request = json.loads(body)
        deadline = time.monotonic() + float(request.pop("WaitTimeSeconds", 0) or 0)
        at_once = json.dumps({**request, "WaitTimeSeconds": 0}).encode()
        while True:
            seen = self._changes
            status, headers, answer = self._change(environ, at_once, keep=lambda sent: b'"Messages"' in sent)
            left = deadline - time.monotonic()
            if b'"Messages"' in answer or int(status[:3]) >= 400 or left <= 0:
                return status, headers, answer
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._changes != seen, min(left, _POLL_SECONDS))

    def _call(self, environ: Environ, body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            started[:] = [status, headers]

        given = {
            **environ,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": _Silence(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "werkzeug.socket": None,
        }
        given.pop("wsgi.input_terminated", None)
        given.pop("HTTP_TRANSFER_ENCODING", None)
        answer = self._application(given, start_response)
        try:
            return started[0], started[1], b"".join(answer)
        finally:
            if close := getattr(answer, "close", None):
                close()


class _Silence(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


def _read_body(environ: Environ) -> bytes:
    if environ.get("wsgi.input_terminated"):
        return environ["wsgi.input"].read()
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _is_kept(name: str, value: Any) -> bool:
    plain = isinstance(value, str) and name not in {"CONTENT_LENGTH", "HTTP_EXPECT"}
    # moto keeps the spelling of headers with underscores in a dictionary of its own.
    return plain or (isinstance(value, dict) and not name.startswith(("wsgi.", "werkzeug.")))


def _action(environ: Environ, body: bytes) -> str:
    """The API's action; empty for REST, where the method tells."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return target.rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        found = re.search(rb"(?:^|&)Action=([A-Za-z0-9]+)", body)
        return found[1].decode() if found else ""
    return ""


def _is_read(environ: Environ, action: str) -> bool:
    if action:
        return bool(_READS.match(action))
    return environ["REQUEST_METHOD"] in {"GET", "HEAD", "OPTIONS"}


def _refusal(action: str, body: bytes) -> bytes | None:
    if action != "CreateKey":
        return None
    request = json.loads(body)
    spec = request.get("KeySpec") or request.get("CustomerMasterKeySpec") or "SYMMETRIC_DEFAULT"
    if spec in _KEPT:
        return None
    message = f"the sandbox keeps no key of {spec}; use one of {', '.join(_KEPT)}"
    return json.dumps({"__type": "UnsupportedOperationException", "message": message}).encode()
