"""What the entrance holds at once, bounded in bytes: of one request, of one tenant, and of the process.

A body is held as bytes, as parsed values and as rows, so that a byte of it takes up to some ten of memory;
the bounds come from the pod's 384 MiB. What is over a bound is refused at once with a time to come back,
since a queue would only move the wait into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus

from kilo.web.problem import Problem

BATCH_BYTES = 1_048_576
"""The largest body of a batch. The gateway keeps so much of a request for trying it again."""
BATCH_EVENTS = 1_000
TRANSACTION_EVENTS = 250
"""In one transaction: a batch is stored in several, and one that is to be stored whole is no larger."""
READ_SECONDS = 30.0
"""Within which a request's body has to be there."""
_PROCESS_BYTES = 16 * BATCH_BYTES
_TENANT_BYTES = 6 * BATCH_BYTES
AGAIN = {"retry-after": "1"}


class BodyBudget:
    """The bytes of bodies that are in memory, by tenant and in all."""

    def __init__(self, process_bytes: int = _PROCESS_BYTES, tenant_bytes: int = _TENANT_BYTES) -> None:
        self._process_bytes, self._tenant_bytes = process_bytes, tenant_bytes
        self._held: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def held(self, tenant: str, size: int) -> Generator[None]:
        """Count ``size`` bytes as ``tenant``'s while the block runs.

        Raises:
            Problem: 429 when the tenant's share is used up, 503 when the process's is.
        """
        if self._held[tenant] + size > self._tenant_bytes:
            detail = (
                f"requests of {self._tenant_bytes} bytes of this tenant are under way; send fewer at once"
            )
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=AGAIN)
        if self._total + size > self._process_bytes:
            detail = "too many bytes are under way; nothing of this request is stored"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=AGAIN)
        self._held[tenant] += size
        self._total += size
        try:
            yield
        finally:
            self._total -= size
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]
