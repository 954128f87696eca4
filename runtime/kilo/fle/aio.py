"""AsyncFieldCipher: the cipher for asyncio.

With its keys in memory a value takes microseconds, and is done on the event loop; a fetch from KMS and
the key table takes milliseconds, and happens in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, Self, TypeVar

from kilo.contract import KeyReference, StackOutputs
from kilo.fle.cipher import FieldCipher
from kilo.fle.formats import RowId
from kilo.fle.frames import clears_frames_async
from kilo.fle.keymaking import WouldWait
from kilo.fle.keyset import CacheLimits
from kilo.fle.kms import KmsClients

P = ParamSpec("P")
T = TypeVar("T")

_LARGE = 256
"""Values in a column from which on a thread is worth its switch: about a millisecond of work."""


class AsyncFieldCipher:
    """As :class:`kilo.fle.FieldCipher`, which ``sync`` is; it shares its keys."""

    def __init__(self, sync: FieldCipher) -> None:
        self.sync = sync

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
        """See :meth:`FieldCipher.from_outputs`."""
        return cls(
            FieldCipher.from_outputs(
                outputs,
                database_url,
                table=table,
                deterministic=deterministic,
                principal=principal,
                kms=kms,
                second=second,
                limits=limits,
            )
        )

    def for_table(self, table: str, *, deterministic: Iterable[str] = ()) -> Self:
        """The same keys for another table."""
        return type(self)(self.sync.for_table(table, deterministic=deterministic))

    def encrypted_fields(self, tenant: str) -> frozenset[str]:
        """The fields that the stage's configuration encrypts for ``tenant``."""
        return self.sync.encrypted_fields(tenant)

    @clears_frames_async
    async def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str | bytes) -> str:
        """See :meth:`FieldCipher.encrypt`."""
        return await self._run(1, self.sync.encrypt, tenant, field, row_id, plaintext)

    async def decrypt(self, tenant: str, field: str, row_id: RowId, value: str) -> str:
        """See :meth:`FieldCipher.decrypt`."""
        return await self._run(1, self.sync.decrypt, tenant, field, row_id, value)

    async def decrypt_bytes(self, tenant: str, field: str, row_id: RowId, value: str) -> bytes:
        """See :meth:`FieldCipher.decrypt_bytes`."""
        return await self._run(1, self.sync.decrypt_bytes, tenant, field, row_id, value)

    @clears_frames_async
    async def encrypt_column(
        self, tenant: str, field: str, row_ids: Sequence[RowId], plaintexts: Sequence[str | bytes]
    ) -> list[str]:
        """See :meth:`FieldCipher.encrypt_column`."""
        return await self._run(len(row_ids), self.sync.encrypt_column, tenant, field, row_ids, plaintexts)

    @clears_frames_async
    async def decrypt_column(
        self, tenant: str, field: str, row_ids: Sequence[RowId], values: Sequence[str]
    ) -> list[str]:
        """See :meth:`FieldCipher.decrypt_column`."""
        return await self._run(len(row_ids), self.sync.decrypt_column, tenant, field, row_ids, values)

    @clears_frames_async
    async def protect(self, tenant: str, record: Mapping[str, object], row_id: RowId) -> dict[str, object]:
        """See :meth:`FieldCipher.protect`."""
        return await self._run(1, self.sync.protect, tenant, record, row_id)

    @clears_frames_async
    async def reveal(self, tenant: str, record: Mapping[str, object], row_id: RowId) -> dict[str, object]:
        """See :meth:`FieldCipher.reveal`."""
        return await self._run(1, self.sync.reveal, tenant, record, row_id)

    async def protected_fields(self, tenant: str) -> frozenset[str]:
        """See :meth:`FieldCipher.protected_fields`."""
        return await self._run(1, self.sync.protected_fields, tenant)

    async def revealed_fields(self, tenant: str) -> frozenset[str]:
        """See :meth:`FieldCipher.revealed_fields`."""
        return await self._run(1, self.sync.revealed_fields, tenant)

    async def reveal_value(self, tenant: str, field: str, row_id: RowId, value: object) -> object:
        """See :meth:`FieldCipher.reveal_value`."""
        return await self._run(1, self.sync.reveal_value, tenant, field, row_id, value)

    @clears_frames_async
    async def encrypt_deterministic(self, tenant: str, field: str, plaintext: str | bytes) -> str:
        """See :meth:`FieldCipher.encrypt_deterministic`."""
        return await self._run(1, self.sync.encrypt_deterministic, tenant, field, plaintext)

    async def warm(self, tenants: Iterable[str] | None = None) -> None:
        """See :meth:`FieldCipher.warm`."""
        await asyncio.to_thread(self.sync.warm, tenants)

    async def _run(self, values: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if values < _LARGE:
            try:
                with self.sync.keyring.inline():
                    return call(*args, **kwargs)
            except WouldWait:
                pass
        return await asyncio.to_thread(call, *args, **kwargs)
