"""Opening encrypted values: of any format, one by one or a column at once, and why one does not open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from prometheus_client import REGISTRY

from kilo.fle.datakey import XaesKey
from kilo.fle.errors import FieldError, NotAuthentic, WrongKey, WrongSuite
from kilo.fle.formats import (
    SUITE_KC_XAES,
    V1,
    V1_MINIMUM,
    V2,
    V2_HEADER,
    RowId,
    associated_data,
    classify,
    is_encrypted,
    older_row_data,
    row_data,
    to_bytes,
)
from kilo.fle.frames import clears_frames
from kilo.fle.keyring import Keyring
from kilo.fle.keyset import Reader
from kilo.fle.records import Records
from kilo.fle.text import text_of
from kilo.fle.usage import raise_by
from kilo.fle.xaes import CommitmentMismatch
from kilo.observe.metrics import FLE_DECRYPT_FAILURES

_FAILURES = FLE_DECRYPT_FAILURES.create(REGISTRY)


class Opening(Records):
    """The part of :class:`kilo.fle.FieldCipher` that decrypts; its arguments are the same."""

    def __init__(
        self,
        keyring: Keyring,
        scope: Mapping[str, Iterable[str]],
        table: str,
        *,
        deterministic: Iterable[str] = (),
        known: Iterable[str] = (),
    ) -> None:
        super().__init__(keyring, scope, known)
        self.table = table
        self.deterministic = frozenset(deterministic)
        self._clock, self._keysets = keyring.clock, keyring.keysets

    def decrypt(self, tenant: str, field: str, row_id: RowId, value: str) -> str:
        """Decrypt one value to text; see :meth:`decrypt_bytes`.

        Raises:
            NotText: bytes were encrypted that are not UTF-8.
        """
        return text_of(tenant, field, self.decrypt_bytes(tenant, field, row_id, value))

    def decrypt_bytes(self, tenant: str, field: str, row_id: RowId, value: str) -> bytes:
        """Decrypt one value of any format.

        Raises:
            FieldError: one of the classes in :mod:`kilo.fle.errors`; each failure is counted by tenant
                and reason.
        """
        try:
            raw = to_bytes(value)
            if len(raw) >= V1_MINIMUM and raw[0] == V1:
                return self._open_v1(tenant, raw)
            _, suite = classify(raw)
            if suite == SUITE_KC_XAES:
                if field not in self.deterministic:
                    return self._open_v2(tenant, field, raw, row_id)
            elif field in self.deterministic:
                return self._open_siv(tenant, field, raw)
            raise WrongSuite
        except FieldError as error:
            problem = error.at(tenant, field)
        # Raised here, outside of the handler, so that no earlier error's frames hang on it.
        raise self._counted(problem)

    def decrypt_stored(self, tenant: str, field: str, row_id: RowId, value: str) -> bytes:
        """As :meth:`decrypt_bytes`, whichever suite made the value: for rotation, which keeps the suite.

        A service reads a column by the suite that its scope names, and has no use for this.
        """
        try:
            return self._open_any(tenant, field, row_id, to_bytes(value))
        except FieldError as error:
            problem = error.at(tenant, field)
        raise self._counted(problem)

    @clears_frames
    def field_of(self, tenant: str, row_id: RowId, value: str) -> str | None:
        """The field of this row that ``value`` was encrypted for, or none: for what came by another name.

        Raises:
            FieldError: the tenant's keys can't be had.
        """
        if not is_encrypted(value):
            return None
        raw = to_bytes(value)
        for field in self.revealed_fields(tenant):
            with suppress(FieldError):
                self._open_any(tenant, field, row_id, raw)
                return field
        return None

    @clears_frames
    def decrypt_column(
        self, tenant: str, field: str, row_ids: Sequence[RowId], values: Sequence[str]
    ) -> list[str]:
        """Decrypt a column of values to text; see :meth:`decrypt_column_bytes`."""
        return [
            text_of(tenant, field, each) for each in self.decrypt_column_bytes(tenant, field, row_ids, values)
        ]

    def decrypt_column_bytes(
        self, tenant: str, field: str, row_ids: Sequence[RowId], values: Sequence[str]
    ) -> list[bytes]:
        """Decrypt a column of values, one a row; the first that fails raises as :meth:`decrypt` does.

        Columns under one key are decrypted together, and those that were encrypted together fastest.
        """
        if len(row_ids) != len(values):
            msg = f"{len(row_ids)} row ids for {len(values)} values"
            raise ValueError(msg)
        try:
            raws = [to_bytes(value) for value in values]
            kinds = {classify(raw) for raw in raws}
            if kinds == {(V1, 0)} and len(keys := self.keyring.v1_readers(tenant)) == 1:
                opened = keys[0].open_many(raws)
                raise_by(self.keyring.keyset(tenant).uses.decrypts, len(opened) - 1)
                return opened
            heads = {raw[:V2_HEADER] for raw in raws}
            if kinds == {(V2, SUITE_KC_XAES)} and len(heads) == 1 and field not in self.deterministic:
                reader = self._reader(tenant, field, heads.pop())
                opened = reader.key.open_many(raws, reader.place, row_ids)
                raise_by(reader.uses, len(opened))
                return opened
        except (FieldError, CommitmentMismatch, InvalidTag):
            # One by one, so that the failure is counted and names its own key and reason.
            pass
        return [
            self.decrypt_bytes(tenant, field, row, value) for row, value in zip(row_ids, values, strict=True)
        ]

    def _counted(self, problem: FieldError) -> FieldError:
        _FAILURES.labels(problem.tenant if problem.tenant in self._scope else "unknown", problem.reason).inc()
        return problem

    def _open_any(self, tenant: str, field: str, row_id: RowId, raw: bytes) -> bytes:
        version, suite = classify(raw)
        if version == V1:
            return self._open_v1(tenant, raw)
        if suite == SUITE_KC_XAES:
            return self._open_v2(tenant, field, raw, row_id)
        return self._open_siv(tenant, field, raw)

    def _open_v1(self, tenant: str, raw: bytes) -> bytes:
        keyset = self._keysets.get(tenant)
        if keyset is not None and keyset.v1 is not None and self._clock() < keyset.fresh_until:
            keys = keyset.v1
            next(keyset.uses.decrypts)
        else:
            keys = self.keyring.v1_readers(tenant)
        for key in keys:
            try:
                return key.open(raw)
            except InvalidTag:
                continue
        # The value may be under a key that can't be had now.
        refused = self.keyring.keyset(tenant).v1_refused
        raise refused or NotAuthentic(key_id=keys[0].key_id if len(keys) == 1 else None)

    def _open_v2(self, tenant: str, field: str, raw: bytes, row_id: RowId) -> bytes:
        reader = self._reader(tenant, field, raw[:V2_HEADER])
        next(reader.uses)
        problem: type[FieldError] = NotAuthentic
        try:
            return reader.key.open(raw, reader.place + row_data(row_id))
        except CommitmentMismatch:
            problem = WrongKey
        except InvalidTag:
            for row in older_row_data(row_id):
                with suppress(InvalidTag):
                    return reader.key.open(raw, reader.place + row)
        raise problem(key_id=reader.key.key_id)

    def _open_siv(self, tenant: str, field: str, raw: bytes) -> bytes:
        reader = self._reader(tenant, field, raw[:V2_HEADER])
        next(reader.uses)
        try:
            return reader.key.open_deterministic(raw, reader.place)
        except InvalidTag:
            pass
        raise NotAuthentic(key_id=reader.key.key_id)

    def _reader(self, tenant: str, field: str, head: bytes) -> Reader:
        keyset = self._keysets.get(tenant)
        if keyset is not None and self._clock() < keyset.fresh_until:
            found = keyset.readers.get((self.table, field, head))
            if found is not None:
                return found
        key, keyset = self.keyring.reader(tenant, int.from_bytes(head[2:], "big"))
        if not isinstance(key, XaesKey):
            raise WrongKey(key_id=key.key_id)
        reader = Reader(key, associated_data(head, tenant, self.table, field), keyset.uses.decrypts)
        keyset.readers[self.table, field, head] = reader
        return reader
