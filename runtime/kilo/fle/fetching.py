"""Fetching keys: a tenant's rows from the key table and its keys from KMS, together and into memory.

One thread fetches, the others of that tenant wait for it. :mod:`kilo.fle.keyring` says how long keys
serve.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import NoReturn

from kilo.contract import KeyReference
from kilo.fle.errors import FieldError, KeyDestroyed, WrapNotAuthentic
from kilo.fle.keymaking import KeyMaking
from kilo.fle.keyset import CacheLimits, Keyset
from kilo.fle.keytable import DATA, INDEX, KeyRow, KeyTable
from kilo.fle.kms import KmsClients
from kilo.fle.refusals import Refusals
from kilo.fle.usage import uses_of
from kilo.fle.wraps import PASSING, secret_digest

_log = logging.getLogger(__name__)
READABLE = ("active", "retiring", "pending")
"""The states of keys that still open values."""
_instances: weakref.WeakSet[KeyFetching] = weakref.WeakSet()


class KeyFetching(KeyMaking):
    """The part of :class:`kilo.fle.keyring.Keyring` that fetches keys and keeps them."""

    def __init__(
        self,
        table: KeyTable,
        kms: KmsClients,
        references: Mapping[str, tuple[KeyReference, ...]],
        *,
        principal: str = "default",
        limits: CacheLimits | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(table, kms, references)
        self.principal = principal
        self.limits = limits or CacheLimits()
        self.clock = clock
        self.keysets: OrderedDict[str, Keyset] = OrderedDict()
        self._start_empty()
        _instances.add(self)

    def _start_empty(self) -> None:
        # The same dictionary goes on, since ciphers hold it.
        self.keysets.clear()
        self.refusals = Refusals(self.limits.max_tenants, self.clock)
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Keyring(principal={self.principal!r}, tenants={len(self.keysets)})"

    def __reduce__(self) -> NoReturn:
        msg = "a keyring can't be pickled"
        raise TypeError(msg)

    def clear(self) -> None:
        """Forget every key; the next use fetches again."""
        self._start_empty()

    def keyset(self, tenant: str) -> Keyset:
        """The tenant's keys, fetched when there are none or they are no longer fresh."""
        keyset = self.keysets.get(tenant)
        if keyset is not None and self.clock() < keyset.fresh_until:
            return keyset
        lock = self._lock(tenant)
        if not lock.acquire(blocking=False):
            # Another thread is fetching: what it replaces serves meanwhile, if an outage would let it serve.
            if keyset is not None and self.clock() < keyset.serve_until:
                return keyset
            self._may_block()
            lock.acquire()
        try:
            return self._refresh(tenant)
        finally:
            lock.release()

    def _refresh(self, tenant: str) -> Keyset:
        self._may_block()
        keyset = self.keysets.get(tenant)
        now = self.clock()
        if keyset is not None and now < keyset.fresh_until:
            return keyset
        if keyset is None:
            self.refusals.check(tenant, 0)
        try:
            fetched = self._fetch(tenant, keyset)
        except PASSING as error:
            if keyset is not None and now < keyset.serve_until:
                if any(now >= until for until in keyset.deadlines.values()):
                    self.keysets[tenant] = keyset = keyset.at(now, self.limits)
                keyset.fresh_until = min(
                    now + self.limits.retry_seconds, keyset.serve_until, *keyset.deadlines.values()
                )
                keyset.outage = error
                return keyset
            self.keysets.pop(tenant, None)
            self.refusals.remember(tenant, 0, error, seconds=1)
            raise
        except FieldError as error:
            self.keysets.pop(tenant, None)
            self.refusals.remember(tenant, 0, error, seconds=self.limits.negative_seconds)
            raise
        with self._guard:
            self.keysets[tenant] = fetched
            self.keysets.move_to_end(tenant)
            while len(self.keysets) > self.limits.max_tenants:
                self._locks.pop(self.keysets.popitem(last=False)[0], None)
        return fetched

    def _again(self, tenant: str) -> Keyset:
        current = self.keysets.get(tenant)
        if current is not None:
            current.fresh_until = self.clock()
        return self.keyset(tenant)

    def _fetch(self, tenant: str, old: Keyset | None) -> Keyset:
        """Read the tenant's rows and unwrap anew each key that was in use, which finds revocations."""
        self.wraps.of_tenant(tenant)
        rows = self.table.read(tenant)
        if rows.shredded:
            raise KeyDestroyed(tenant, detail="the tenant was shredded")
        keyset = Keyset(rows, uses_of(tenant), self.clock(), self.limits)
        if old is None:
            return keyset
        keyset.digests = old.digests
        in_use = set(old.keys) | set(old.index)
        for row in rows.keys:
            if row.id in in_use and row.state in READABLE:
                self._carry_over(row, old, keyset)
        active = rows.active(DATA)
        keyset.writer = keyset.keys.get(active.id) if active else None
        return keyset

    def _carry_over(self, row: KeyRow, old: Keyset, keyset: Keyset) -> None:
        """Take a key from ``old`` when it unwraps to what it was; a refused one fails at its own next use."""
        try:
            secret = self._unwrap(old, row)
        except PASSING as error:
            until = old.deadlines.get(row.id, old.serve_until)
            if keyset.fetched_at >= until:
                return
            secret = bytearray(old.index.get(row.id, b""))
            keyset.deadlines[row.id] = until
            keyset.outage = error
            keyset.fresh_until = min(keyset.fresh_until, keyset.fetched_at + self.limits.retry_seconds, until)
        except FieldError as error:
            _log.warning("%s: a key in use is refused: %s", row.tenant, error)
            return
        if row.purpose == INDEX:
            keyset.index[row.id] = secret
            return
        # The cipher itself goes on: it holds the same key and the messages reserved for it.
        keyset.keys[row.id] = old.keys[row.id]
        secret[:] = bytes(len(secret))

    def _unwrap(self, keyset: Keyset, row: KeyRow) -> bytearray:
        """The secret of ``row``, which must be the one that ``keyset`` has had of this key before."""
        self._may_block()
        self.refusals.check(row.tenant, row.id)
        try:
            secret = self.wraps.unwrap(row)
            digest = secret_digest(secret)
            if keyset.digests.setdefault(row.id, digest) != digest:
                secret[:] = bytes(len(secret))
                detail = "it opens to another secret than it did before"
                raise WrapNotAuthentic(row.tenant, key_id=row.id, detail=detail)
        except FieldError as error:
            passing = isinstance(error, PASSING)
            seconds = 1 if passing else self.limits.negative_seconds
            self.refusals.remember(row.tenant, row.id, error, seconds=seconds)
            raise
        return secret

    def _lock(self, tenant: str) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(tenant, threading.RLock())

    @contextmanager
    def _holding(self, tenant: str) -> Generator[None]:
        lock = self._lock(tenant)
        if not lock.acquire(blocking=False):
            self._may_block()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _forget_in_child() -> None:
    for each in list(_instances):
        each.clear()


os.register_at_fork(after_in_child=_forget_in_child)
