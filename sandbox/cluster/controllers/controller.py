"""What controllers have in common: a queue of keys, one reconciliation at a time, retries that back off.

A reconciliation is a plain function of the store: it looks at what is, changes one step, and says when it
wants to look again. Whatever it changes wakes it anew, so it need not be complete in one go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable

from sandbox.cluster.errors import ApiError
from sandbox.cluster.objects import Key, Object, controller_of, is_owned_by
from sandbox.cluster.resources import Resources

_FIRST_RETRY, _LAST_RETRY = 0.1, 30.0
_log = logging.getLogger(__name__)


class Controller(ABC):
    """Reconciles all objects of one kind."""

    api_version: str
    kind: str

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.store = resources.store

    @abstractmethod
    def reconcile(self, obj: Object) -> float | None:
        """Bring one object a step closer; the seconds after which to look again, if time alone matters.

        Raises:
            ApiError: the API server refused a change; tried again later.
        """

    def affected(self, key: Key, obj: Object) -> Iterable[Key]:
        """The keys of this kind's objects to look at when any object has changed, or goes after that."""
        if (key.api_version, key.kind) == (self.api_version, self.kind):
            return [key]
        owner = controller_of(obj)
        return [owner] if owner and (owner.api_version, owner.kind) == (self.api_version, self.kind) else []

    def gone(self, key: Key) -> None:
        """An object of this kind is gone; let go of what was kept for it."""
        del key

    def refused(self, obj: Object, error: ApiError) -> None:
        """The API server refused what a reconciliation wanted."""
        _log.warning("%s %s: %s", self.kind, obj["metadata"]["name"], error)

    def controlled(self, owner: Object, api_version: str, kind: str) -> list[Object]:
        """The objects of a kind that ``owner`` controls, oldest first."""
        found = self.store.list(api_version, kind, owner["metadata"]["namespace"])
        return [obj for obj in found if is_owned_by(obj, owner)]


class Manager:
    """Runs controllers on the changes of one store."""

    def __init__(self, controllers: Iterable[Controller], resources: Resources) -> None:
        self._controllers = list(controllers)
        self._store = resources.store
        self._due: dict[tuple[Controller, Key], float] = {}
        self._failures: dict[tuple[Controller, Key], int] = {}
        self._owners: dict[Key, list[tuple[Controller, Key]]] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Reconcile until cancelled, asleep while nothing is due."""
        self._store.subscribe(self._changed)
        for key in self._store.all_keys():
            self._changed(key, self._store.get(key))
        while True:
            self._wake.clear()
            now = time.monotonic()
            due = sorted((item for item, when in self._due.items() if when <= now), key=lambda i: i[1])
            for item in due:
                self._due.pop(item, None)
                self._reconcile(*item)
                # Requests to the API and probes go between two reconciliations.
                await asyncio.sleep(0)
            if not due:
                next_due = min(self._due.values(), default=None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if next_due is None else next_due - now)

    def _changed(self, key: Key, obj: Object | None) -> None:
        if obj is None:
            # Who looked after it is asked once more, now that it is gone.
            affected = self._owners.pop(key, [])
            for controller in self._controllers:
                if (key.api_version, key.kind) == (controller.api_version, controller.kind):
                    controller.gone(key)
        else:
            affected = [(c, target) for c in self._controllers for target in c.affected(key, obj)]
            if affected:
                self._owners[key] = affected
        for item in affected:
            self._due[item] = 0.0
        self._wake.set()

    def _reconcile(self, controller: Controller, key: Key) -> None:
        item = (controller, key)
        obj = self._store.get(key)
        if obj is None:
            self._failures.pop(item, None)
            return
        try:
            again = controller.reconcile(obj)
        except Exception as error:
            if isinstance(error, ApiError):
                controller.refused(obj, error)
            else:
                _log.exception("%s", key)
            failures = self._failures[item] = self._failures.get(item, 0) + 1
            again = min(_FIRST_RETRY * 2**failures, _LAST_RETRY)
        else:
            self._failures.pop(item, None)
        if again is not None:
            self._due[item] = min(self._due.get(item, float("inf")), time.monotonic() + again)
