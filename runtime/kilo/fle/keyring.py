"""The keyring: data keys in memory, bounded by age, messages and bytes, apart by tenant and principal.

A tenant's keys are fetched together: its rows from the key table, and from KMS each key that is used.
One thread fetches, the others of that tenant wait for it. Keys are fresh for ``max_age_seconds``; then
they are fetched again, and so a key that was revoked or disabled in KMS stops within that time. Where
KMS or the table does not answer, and only then, they serve ``outage_seconds`` longer. Each key by itself: one
that KMS refuses, or does not answer for, stops none of the others. A refusal is remembered for
``negative_seconds``. A forked child starts with no keys.

Left out: a cache that processes share. It would be one more place where keys lie.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import NoReturn

from kilo.contract import KeyReference
from kilo.fle.datakey import TICKET_BYTES, DataKey, GcmKey, XaesKey, data_key, derive_index_key
from kilo.fle.errors import (
    Downgraded,
    FieldError,
    KeyDestroyed,
    KeyRetired,
    KeyTableDenied,
    KeyTableUnavailable,
    KmsDenied,
    UnknownKey,
    WrapNotAuthentic,
    WrongTenant,
)
from kilo.fle.keymaking import KeyMaking
from kilo.fle.keyset import CacheLimits, Keyset
from kilo.fle.keytable import DATA, INDEX, KeyRow, KeyTable
from kilo.fle.kms import KmsClients
from kilo.fle.refusals import Refusals
from kilo.fle.usage import uses_of
from kilo.fle.wraps import PASSING, secret_digest

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_READABLE = ("active", "retiring", "pending")
_keyrings: weakref.WeakSet[Keyring] = weakref.WeakSet()


class Keyring(KeyMaking):
    """Data keys by tenant for one principal.

    Args:
        table: the key table.
        kms: KMS clients under the principal's credentials.
        references: the KMS keys that wrap a tenant's data keys; the first is tried first.
        principal: whose credentials ``kms`` carries. Keysets are never shared between principals.
        limits: the cache's bounds.
        clock: seconds that only grow.
    """

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
        _keyrings.add(self)

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

    def writer(self, tenant: str) -> tuple[GcmKey | XaesKey, Keyset]:
        """The key that encrypts for ``tenant``; a tenant's first key is made here."""
        keyset = self.keyset(tenant)
        if keyset.writer is not None:
            return keyset.writer, keyset
        with self._holding(tenant):
            if keyset.writer is None:
                keyset = self._with_active(tenant, keyset, DATA)
                active = keyset.rows.active(DATA)
                if active is None:
                    raise UnknownKey(tenant)
                keyset.writer = self._data_key(keyset, active)
        return keyset.writer, keyset

    def reader(self, tenant: str, key_id: int) -> tuple[GcmKey | XaesKey, Keyset]:
        """The tenant's key ``key_id``, for decryption."""
        keyset = self.keyset(tenant)
        found = keyset.keys.get(key_id)
        if found is not None:
            return found, keyset
        owner: str | None = None
        with self._holding(tenant):
            row = _row(keyset, key_id)
            if row is None:
                # Made by a rotation since, or no key of this tenant: a forged value must not cost a fetch.
                self.refusals.check(tenant, key_id)
                self._may_block()
                owner = self.table.owner(key_id)
                if owner == tenant:
                    keyset = self._again(tenant)
                    row = _row(keyset, key_id)
            if row is None:
                passing = keyset.outage if owner == tenant else None
                kind = type(passing) if passing else UnknownKey if owner is None else WrongTenant
                problem = kind(tenant, key_id=key_id, detail=passing.detail if passing else "")
                self.refusals.remember(
                    tenant, key_id, problem, seconds=1 if passing else self.limits.negative_seconds
                )
                raise problem
            return self._data_key(keyset, row), keyset

    def v1_readers(self, tenant: str) -> list[GcmKey]:
        """The tenant's readable keys of format 1, newest first; a v1 value names no key."""
        keyset = self.keyset(tenant)
        next(keyset.uses.decrypts)
        if keyset.v1 is not None:
            return keyset.v1
        rows = [row for row in reversed(keyset.rows.keys) if row.format == 1 and row.purpose == DATA]
        usable = [
            row for row in rows if row.state in _READABLE and row.version >= keyset.rows.minimum_version
        ]
        if not usable:
            raise (
                Downgraded(tenant)
                if rows
                else UnknownKey(tenant, detail="the tenant has no key of format v1")
            )
        keys: list[GcmKey] = []
        problem: FieldError | None = None
        with self._holding(tenant):
            for row in usable:
                try:
                    key = self._data_key(keyset, row)
                except FieldError as error:
                    problem = problem or error
                else:
                    keys += [key] if isinstance(key, GcmKey) else []
        if not keys and problem is not None:
            raise problem
        if not isinstance(problem, PASSING):
            keyset.v1 = keys
        keyset.v1_refused = problem
        return keys

    def index_keys(self, tenant: str, table: str, field: str) -> list[tuple[int, bytes]]:
        """The field's index keys with their versions, the active one first."""
        keyset = self.keyset(tenant)
        found = keyset.index_keys.get((table, field))
        if found is not None:
            return found
        with self._holding(tenant):
            keyset = self._with_active(tenant, keyset, INDEX)
            rows = [row for row in keyset.rows.keys if row.purpose == INDEX and row.state in _READABLE]
            rows.sort(key=lambda row: (row.state != "active", -row.version))
            for row in rows:
                if row.id not in keyset.index:
                    keyset.index[row.id] = self._unwrap(keyset, row)
            found = [
                (row.version, derive_index_key(keyset.index[row.id], tenant, table, field)) for row in rows
            ]
            keyset.index_keys[table, field] = found
        return found

    def search_keys(self, tenant: str) -> list[XaesKey]:
        """The tenant's readable data keys of format 2, the active one first, none older than a second ago.

        So a value under a key that a rotation has just made is found: the key table is asked for further keys
        once a second. While it does not answer, the keys in memory serve.
        """
        with self._holding(tenant):
            keyset = self._with_active(tenant, self.keyset(tenant), DATA)
            if self.clock() - keyset.looked_at >= _LOOK_SECONDS:
                self._may_block()
                with suppress(KeyTableUnavailable):
                    if self.table.read(tenant) != keyset.rows:
                        keyset = self._again(tenant)
                    keyset.looked_at = self.clock()
            rows = [
                row
                for row in keyset.rows.keys
                if row.purpose == DATA
                and row.state in _READABLE
                and row.version >= keyset.rows.minimum_version
            ]
            rows.sort(key=lambda row: (row.state != "active", -row.version))
            keys = [self._data_key(keyset, row) for row in rows if row.format != 1]
        return [key for key in keys if isinstance(key, XaesKey)]

    def extend(self, key: DataKey, ticket: int) -> None:
        """Reserve messages for ``key`` until ``ticket`` is covered."""
        # Before the key's lock, which another thread may hold while it asks the key table.
        self._may_block()
        key.extend(ticket, self.reserve)

    def reserve(self, key: DataKey) -> int:
        """Reserve a block of messages for ``key``.

        Past the cache's own limit, and when the key is no longer the active one, the next use fetches again.

        Raises:
            KeyRetired: a writer that was away for longer than keys serve from memory holds a key of the past.
        """
        most = min(self.limits.max_messages, self.limits.max_bytes // TICKET_BYTES)
        granted, active = 0, False
        try:
            granted, active = self.table.reserve(key.key_id, max(1, min(self.limits.reserve_messages, most)))
        except KeyRetired as error:
            problem = error.at(key.tenant, "")
        else:
            problem = None
        with self._guard:
            keyset = self.keysets.get(key.tenant)
            if keyset is not None:
                keyset.messages += granted
                if keyset.messages > most or not active:
                    keyset.fresh_until = self.clock()
        if problem is not None:
            raise problem
        return granted

    def _with_active(self, tenant: str, keyset: Keyset, purpose: str) -> Keyset:
        if keyset.rows.active(purpose) is not None:
            return keyset
        try:
            self.create(tenant, purpose, "active")
        except (KmsDenied, KeyTableDenied) as error:
            detail = f"{error.detail}; it has no {purpose} key yet: `kilo fle keys make` makes it"
            problem = type(error)(tenant, detail=detail)
        else:
            return self._again(tenant)
        raise problem

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
            if row.id in in_use and row.state in _READABLE:
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

    def _data_key(self, keyset: Keyset, row: KeyRow) -> GcmKey | XaesKey:
        known = keyset.keys.get(row.id)
        if known is not None:
            return known
        if row.state == "destroyed":
            raise KeyDestroyed(row.tenant, key_id=row.id)
        if row.state not in _READABLE or row.version < keyset.rows.minimum_version:
            raise Downgraded(row.tenant, key_id=row.id)
        secret = self._unwrap(keyset, row)
        try:
            keyset.keys[row.id] = key = data_key(row, secret)
        finally:
            secret[:] = bytes(len(secret))
        return key

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


def _row(keyset: Keyset, key_id: int) -> KeyRow | None:
    return next((row for row in keyset.rows.keys if row.id == key_id), None)


def _forget_in_child() -> None:
    for keyring in list(_keyrings):
        keyring.clear()


os.register_at_fork(after_in_child=_forget_in_child)
