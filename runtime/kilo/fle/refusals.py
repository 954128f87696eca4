"""Refusals that are remembered for a while, so that what can't succeed does not ask KMS each time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from kilo.fle.errors import FieldError


class Refusals:
    """By tenant and key id, where 0 stands for the tenant's keys as a whole; at most ``most`` of them."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._known: OrderedDict[tuple[str, int], tuple[float, FieldError]] = OrderedDict()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, tenant: str, key_id: int, error: FieldError, seconds: float) -> None:
        """Answer with ``error`` for ``seconds``."""
        with self._guard:
            self._known[tenant, key_id] = (self._clock() + seconds, error)
            self._known.move_to_end((tenant, key_id))
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def check(self, tenant: str, key_id: int) -> None:
        """Raise the refusal that is remembered, if there is one."""
        until, error = self._known.get((tenant, key_id), (0.0, None))
        if error is not None and self._clock() < until:
            raise error.at(tenant, "")
