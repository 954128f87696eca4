"""FieldCipher: encrypts and decrypts the fields of one table, for every tenant of the stage.

The path of a value whose key is in memory touches neither network nor lock. Encrypted values name
their key, so they stay readable through rotations; the tenant, table, column and row are bound to them
and never stored, so a value that is moved is refused.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NoReturn, Self

from kilo.contract import KeyReference, StackOutputs
from kilo.fle.datakey import TICKET_BYTES, DataKey, XaesKey
from kilo.fle.errors import FieldError, OutOfScope, TooLong, UnknownSuite, UnknownTenant
from kilo.fle.formats import MAXIMUM_PLAINTEXT, RowId, associated_data, to_text
from kilo.fle.frames import clear, clears_frames
from kilo.fle.keyring import Keyring
from kilo.fle.keyset import CacheLimits, Keyset, Writer
from kilo.fle.keytable import KeyTable
from kilo.fle.kms import KmsClients
from kilo.fle.opening import Opening
from kilo.fle.scope import known_fields
from kilo.fle.text import bytes_of


class FieldCipher(Opening):
    """Encrypts and decrypts fields of ``table``.

    Threads may share it; a forked child fetches its keys anew. Make it with :meth:`from_outputs`.

    Args:
        keyring: where keys come from.
        scope: the encrypted fields by tenant.
        table: the table (or the aggregate) that the fields belong to; part of what is authenticated.
        deterministic: the fields whose columns hold AES-SIV values; the others hold none.
        known: see :class:`Records`.
    """

    @classmethod
    def from_outputs(
        cls,
        outputs: StackOutputs,
        database_url: str,
        *,
        table: str,
        deterministic: Iterable[str] = (),
        principal: str = "default",
        kms: KmsClients | None = None,
        second: Mapping[str, KeyReference] | None = None,
        limits: CacheLimits | None = None,
    ) -> Self:
        """Make a cipher for a stage.

        Args:
            outputs: the stack's outputs; each tenant's ``encryption_key`` and ``encrypted_fields`` are used.
            database_url: PostgreSQL with the key table, as a role that may read it.
            table: the table, or aggregate, whose fields these are.
            deterministic: the fields whose columns hold AES-SIV values (:meth:`encrypt_deterministic`): they
                are written and read so, and one of another suite is refused in any column.
            principal: whose credentials are used; keys in memory are never shared between principals.
            kms: KMS clients; by default those of the process's own credentials.
            second: a further KMS key by tenant (another region or cloud): losing one KMS then loses no data.
                By default those of the outputs.
            limits: the bounds of the key cache.
        """
        further = outputs.field_encryption.second_keys if second is None else second
        references = {
            tenant: (each.encryption_key, *((further[tenant],) if tenant in further else ()))
            for tenant, each in outputs.tenants.items()
        }
        keyring = Keyring(
            KeyTable(database_url), kms or KmsClients(), references, principal=principal, limits=limits
        )
        scope = {tenant: each.encrypted_fields for tenant, each in outputs.tenants.items()}
        return cls(keyring, scope, table, deterministic=deterministic, known=known_fields(outputs))

    def for_table(self, table: str, *, deterministic: Iterable[str] = ()) -> Self:
        """The same keys for another table."""
        return type(self)(
            self.keyring, self._scope, table, deterministic=deterministic, known=self.known_fields
        )

    def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str | bytes) -> str:
        """Encrypt one value under the tenant's active key, and bind it to its place.

        Args:
            tenant: whose value it is.
            field: its column.
            row_id: the identity of its row, which must not change later.
            plaintext: text (encoded as UTF-8) or bytes, at most 1 MiB.

        Raises:
            OutOfScope: the field is not among the tenant's ``encrypted_fields``.
            FieldError: one of the classes in :mod:`kilo.fle.errors`.
        """
        data = b""
        try:
            data = plaintext if type(plaintext) is bytes else bytes_of(tenant, field, plaintext)
            # Written out rather than called: at this speed each call that is saved shows.
            keyset = self._keysets.get(tenant)
            if keyset is None or self._clock() >= keyset.fresh_until:
                keyset = self._fresh(tenant, field)
            return (keyset.writers[self.table].get(field) or self._prepare(tenant, field)).write(data, row_id)
        except Exception as error:
            clear(error)
            del plaintext, data
            raise

    @clears_frames
    def encrypt_column(
        self, tenant: str, field: str, row_ids: Sequence[RowId], plaintexts: Sequence[str | bytes]
    ) -> list[str]:
        """Encrypt a column of values, one a row; as :meth:`encrypt`, and faster than one by one."""
        if len(row_ids) != len(plaintexts):
            msg = f"{len(row_ids)} row ids for {len(plaintexts)} values"
            raise ValueError(msg)
        if not plaintexts:
            return []
        datas = [bytes_of(tenant, field, each) for each in plaintexts]
        if field in self.deterministic:
            return [self._write_deterministic(tenant, field, each) for each in datas]
        writer = self._writer(tenant, field)
        key = writer.key
        key.take(len(datas), self.keyring.extend)
        for size in map(len, datas):
            if size > TICKET_BYTES:
                self._take_large(key, tenant, field, size)
        sealed = key.seal_many(datas, writer.place, row_ids)
        return [b2a_base64(raw, newline=False).decode("ascii") for raw in sealed]

    @clears_frames
    def encrypt_deterministic(self, tenant: str, field: str, plaintext: str | bytes) -> str:
        """Encrypt so that equal values of a tenant's field are equal (AES-SIV, RFC 5297).

        Whoever sees the column sees which rows are equal and how often each value occurs. The row is not
        bound: a value can be copied to another row of the same tenant and field.
        """
        return self._write_deterministic(tenant, field, bytes_of(tenant, field, plaintext))

    def _write_deterministic(self, tenant: str, field: str, data: bytes, _row: RowId = "") -> str:
        key = self._writer(tenant, field).key
        if len(data) > TICKET_BYTES:
            self._take_large(key, tenant, field, len(data))
        key.take(1, self.keyring.extend)
        if not isinstance(key, XaesKey):
            raise UnknownSuite(tenant, field, key.key_id, "a key of format v1 has no AES-SIV; rotate to v2")
        return to_text(
            key.seal_deterministic(data, associated_data(key.siv_header, tenant, self.table, field))
        )

    def warm(self, tenants: Iterable[str] | None = None) -> None:
        """Fetch keys before the first value needs them; by default of all tenants with encrypted fields."""
        for tenant in tenants if tenants is not None else self._scope:
            if self._scope.get(tenant):
                self.keyring.writer(tenant)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self.table!r}, principal={self.keyring.principal!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a cipher can't be pickled; make one in each process"
        raise TypeError(msg)

    def _writer(self, tenant: str, field: str) -> Writer:
        keyset = self._keysets.get(tenant)
        if keyset is None or self._clock() >= keyset.fresh_until:
            keyset = self._fresh(tenant, field)
        return keyset.writers[self.table].get(field) or self._prepare(tenant, field)

    def _fresh(self, tenant: str, field: str) -> Keyset:
        self._check_scope(tenant, field)
        try:
            return self.keyring.keyset(tenant)
        except FieldError as error:
            problem = error.at(tenant, field)
        raise problem

    def _check_scope(self, tenant: str, field: str) -> None:
        if tenant not in self._scope:
            raise UnknownTenant(tenant, field)
        if field in self._scope[tenant]:
            return
        try:
            kept = field in self.protected_fields(tenant)
        except FieldError as error:
            problem = error.at(tenant, field)
        else:
            if kept:
                return
            problem = OutOfScope(tenant, field)
        raise problem

    def _take_large(self, key: DataKey, tenant: str, field: str, size: int) -> None:
        """Count what a large value is beyond its first ticket."""
        if size > MAXIMUM_PLAINTEXT:
            raise TooLong(tenant, field)
        key.take((size - 1) // TICKET_BYTES, self.keyring.extend)

    def _prepare(self, tenant: str, field: str) -> Writer:
        self._check_scope(tenant, field)
        try:
            key, keyset = self.keyring.writer(tenant)
        except FieldError as error:
            problem = error.at(tenant, field)
        else:
            place = associated_data(key.header, tenant, self.table, field)
            if field in self.deterministic:
                writer = Writer(partial(self._write_deterministic, tenant, field), key, place)
            else:
                large = partial(self._take_large, key, tenant, field)
                writer = Writer(key.writer(place, large, self.keyring.extend), key, place)
            self.keyring.note_scope(tenant, keyset.rows.scope, field)
            keyset.writers[self.table][field] = writer
            return writer
        raise problem
