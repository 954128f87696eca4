"""Which fields of a tenant are encrypted, and whole records by it: written encrypted, read decrypted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kilo.fle.errors import UnknownTenant
from kilo.fle.formats import RowId, is_encrypted
from kilo.fle.frames import clears_frames
from kilo.fle.keyring import Keyring
from kilo.fle.scope import warn_kept


class Records:
    """The part of :class:`kilo.fle.FieldCipher` that knows the scope.

    Args:
        keyring: where keys come from.
        scope: the encrypted fields by tenant.
        known: further names of fields that may be encrypted, such as those of the tables that are rotated.
    """

    def __init__(
        self, keyring: Keyring, scope: Mapping[str, Iterable[str]], known: Iterable[str] = ()
    ) -> None:
        self.keyring = keyring
        self._scope: Mapping[str, frozenset[str]] = {
            each: frozenset(fields) for each, fields in scope.items()
        }
        self.known_fields = frozenset[str]().union(*self._scope.values(), known)
        """The fields that the stage encrypts for a tenant or has a column of; none where it encrypts none."""

    def encrypt(self, tenant: str, field: str, row_id: RowId, plaintext: str | bytes) -> str:
        """See :meth:`kilo.fle.FieldCipher.encrypt`."""
        raise NotImplementedError

    def decrypt(self, tenant: str, field: str, row_id: RowId, value: str) -> str:
        """See :meth:`kilo.fle.FieldCipher.decrypt`."""
        raise NotImplementedError

    def encrypted_fields(self, tenant: str) -> frozenset[str]:
        """The fields that the stage's configuration encrypts for ``tenant``; empty for most tiers.

        What is encrypted in fact are :meth:`protected_fields`.

        Raises:
            UnknownTenant: the tenant is not in the stack's outputs.
        """
        try:
            return self._scope[tenant]
        except KeyError:
            raise UnknownTenant(tenant) from None

    def protected_fields(self, tenant: str) -> frozenset[str]:
        """The fields that are encrypted for ``tenant``: the configuration's, and those stored encrypted.

        A field that left the configuration without a release (``kilo fle rotate plan --kind release``) is
        encrypted and decrypted as before, and a warning says so: values in plain beside encrypted ones, or
        encrypted ones that nobody decrypts, would be the alternative.
        """
        scope = self.encrypted_fields(tenant)
        rows = self.keyring.keyset(tenant).rows
        if rows.scope <= scope:
            return scope
        warn_kept(tenant, rows.scope - rows.plain_accepted - scope)
        return scope | rows.scope

    @clears_frames
    def protect(self, tenant: str, record: Mapping[str, object], row_id: RowId) -> dict[str, object]:
        """A copy of ``record`` with the tenant's encrypted fields encrypted.

        Missing and ``None`` fields stay as they are. A field in scope that is not text is a ``TypeError``:
        encrypting its representation would give back something else than was stored.
        """
        result = dict(record)
        for field in self.protected_fields(tenant) & record.keys():
            value = record[field]
            if value is None:
                continue
            if not isinstance(value, str):
                msg = f"{tenant}/{field}: an encrypted field must be text, not {type(value).__name__}"
                raise TypeError(msg)
            result[field] = self.encrypt(tenant, field, row_id, value)
        return result

    @clears_frames
    def reveal(self, tenant: str, record: Mapping[str, object], row_id: RowId) -> dict[str, object]:
        """A copy of ``record`` with the tenant's encrypted fields decrypted.

        While an approved rotation moves a field into scope or out of it (``kilo fle rotate plan --kind
        adopt`` or ``release``), its plain values are passed on as they are. A plain value in any other
        encrypted field raises :class:`kilo.fle.errors.PlaintextFound`.
        """
        result = dict(record)
        for field in self.revealed_fields(tenant) & record.keys():
            value = record[field]
            if value is not None:
                result[field] = self.reveal_value(tenant, field, row_id, value)
        return result

    def revealed_fields(self, tenant: str) -> frozenset[str]:
        """The fields whose values may be encrypted: those that are, and those that a rotation moves."""
        return self.protected_fields(tenant) | self.keyring.keyset(tenant).rows.noted

    @clears_frames
    def reveal_value(self, tenant: str, field: str, row_id: RowId, value: object) -> object:
        """Decrypt one value as :meth:`reveal` does: while a rotation moves the field, plain ones pass."""
        if field in self.keyring.keyset(tenant).rows.plain_accepted and not (
            isinstance(value, str) and is_encrypted(value)
        ):
            return value
        return self.decrypt(tenant, field, row_id, str(value))
