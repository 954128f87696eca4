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

from contextlib import suppress

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
    WrongTenant,
)
from kilo.fle.fetching import READABLE, KeyFetching
from kilo.fle.keyset import Keyset
from kilo.fle.keytable import DATA, INDEX, KeyRow
from kilo.fle.wraps import PASSING

_LOOK_SECONDS = 1.0


class Keyring(KeyFetching):
    """Data keys by tenant for one principal.

    Args:
        table: the key table.
        kms: KMS clients under the principal's credentials.
        references: the KMS keys that wrap a tenant's data keys; the first is tried first.
        principal: whose credentials ``kms`` carries. Keysets are never shared between principals.
        limits: the cache's bounds.
        clock: seconds that only grow.
    """

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
        usable = [row for row in rows if row.state in READABLE and row.version >= keyset.rows.minimum_version]
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

    def index_key(self, tenant: str, table: str, field: str, version: int | None = None) -> tuple[int, bytes]:
        """The version and the key of one of the field's index keys, by default the active one.

        No other index key is asked for: what became of an older one stops no writer.
        """
        keyset = self.keyset(tenant)
        if version is None and (known := keyset.index_writers.get((table, field))) is not None:
            return known
        with self._holding(tenant):
            keyset = self._with_active(tenant, keyset, INDEX)
            row = next(
                row
                for row in keyset.rows.keys
                if row.purpose == INDEX
                and (row.state == "active" if version is None else row.version == version)
            )
            found = row.version, self._index_key(keyset, row, table, field)
            if version is None:
                keyset.index_writers[table, field] = found
        return found

    def index_keys(self, tenant: str, table: str, field: str) -> list[tuple[int, bytes]]:
        """The field's index keys with their versions, the active one first: all, so that no row is missed."""
        keyset = self.keyset(tenant)
        found = keyset.index_keys.get((table, field))
        if found is not None:
            return found
        with self._holding(tenant):
            keyset = self._with_active(tenant, keyset, INDEX)
            rows = [row for row in keyset.rows.keys if row.purpose == INDEX and row.state in READABLE]
            rows.sort(key=lambda row: (row.state != "active", -row.version))
            found = [(row.version, self._index_key(keyset, row, table, field)) for row in rows]
            keyset.index_keys[table, field] = found
        return found

    def _index_key(self, keyset: Keyset, row: KeyRow, table: str, field: str) -> bytes:
        if row.id not in keyset.index:
            keyset.index[row.id] = self._unwrap(keyset, row)
        return derive_index_key(keyset.index[row.id], row.tenant, table, field)

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
                and row.state in READABLE
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

    def _data_key(self, keyset: Keyset, row: KeyRow) -> GcmKey | XaesKey:
        known = keyset.keys.get(row.id)
        if known is not None:
            return known
        if row.state == "destroyed":
            raise KeyDestroyed(row.tenant, key_id=row.id)
        if row.state not in READABLE or row.version < keyset.rows.minimum_version:
            raise Downgraded(row.tenant, key_id=row.id)
        secret = self._unwrap(keyset, row)
        try:
            keyset.keys[row.id] = key = data_key(row, secret)
        finally:
            secret[:] = bytes(len(secret))
        return key


def _row(keyset: Keyset, key_id: int) -> KeyRow | None:
    return next((row for row in keyset.rows.keys if row.id == key_id), None)
