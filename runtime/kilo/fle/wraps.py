"""Wrapping data keys under a tenant's KMS keys, and what is checked before a wrap is believed.

A wrap comes from a database that others write to. It counts only if its KMS key is one of the tenant's in
the stage's outputs, which is looked at before KMS is asked; if KMS says that it was wrapped for this very
key (tenant, purpose, number, version and format are its context); and if it opens to the secret whose digest
is in the key's row. So whoever may write the key table but not encrypt under the tenant's KMS key adds
nothing that is used, and takes nothing away from a key that has another wrap.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence

from kilo.contract import KeyReference
from kilo.fle.errors import (
    FieldError,
    ForeignKmsKey,
    KeyDestroyed,
    KeyTableUnavailable,
    KmsThrottled,
    KmsUnavailable,
    UnknownTenant,
    WrapNotAuthentic,
)
from kilo.fle.keytable import KeyRow, Wrap
from kilo.fle.kms import KmsClients, context_of, context_without_version
from kilo.fle.regions import Regions
from kilo.fle.usage import uses_of

_log = logging.getLogger(__name__)
PASSING = (KmsUnavailable, KmsThrottled, KeyTableUnavailable)
"""Failures that say nothing of the key: trying again later may go well."""
_DIGEST_OF = b"kilo data key digest v1"


def secret_digest(secret: bytes | bytearray) -> bytes:
    """What a key's row commits to: HMAC-SHA256 (RFC 2104) under the secret, 32 bytes."""
    return hmac.digest(secret, _DIGEST_OF, "sha256")


class Wraps:
    """Wraps and unwraps data keys for one principal.

    Args:
        kms: KMS clients under the principal's credentials.
        references: the KMS keys of each tenant; the first is tried first.
    """

    def __init__(self, kms: KmsClients, references: Mapping[str, tuple[KeyReference, ...]]) -> None:
        self.regions, self.references = Regions(kms), references

    def of_tenant(self, tenant: str) -> tuple[KeyReference, ...]:
        """The tenant's KMS keys.

        Raises:
            UnknownTenant: the stage's outputs name none.
        """
        references = self.references.get(tenant)
        if not references:
            raise UnknownTenant(tenant)
        return references

    def wrap(self, row: KeyRow, secret: bytearray) -> list[Wrap]:
        """Wrap ``secret`` for the key of ``row`` under every KMS key of its tenant."""
        context = context_of(row.tenant, row.purpose, row.id, row.version, row.format)
        return [
            Wrap(each.provider, each.key, self.regions.wrap(each, secret, context))
            for each in {(each.provider, each.key): each for each in self.of_tenant(row.tenant)}.values()
        ]

    def unwrap(self, row: KeyRow, before: Sequence[KeyReference] = ()) -> bytearray:
        """The secret of ``row``, by the first of its wraps that can be believed.

        Args:
            row: the key. One without a digest, from before there were any, is wrapped without its version.
            before: further KMS keys that a person names: the tenant's former ones.

        Raises:
            FieldError: why the wrap that came closest failed; a failure of KMS that may pass comes first.
        """
        if not row.wraps:
            raise KeyDestroyed(row.tenant, key_id=row.id)
        next(uses_of(row.tenant).fetches)
        allowed = {(each.provider, each.key): each for each in (*before, *self.of_tenant(row.tenant))}
        problem: FieldError | None = None
        for wrap in row.wraps:
            reference = allowed.get((wrap.provider, wrap.kms_key))
            if reference is None:
                _log.warning(
                    "%s: key %s has a wrap under %s, which is not the tenant's KMS key: not used",
                    row.tenant,
                    row.id,
                    wrap.kms_key,
                )
                found: FieldError = ForeignKmsKey(detail=wrap.kms_key)
            else:
                try:
                    return self._open(row, wrap, reference)
                except FieldError as error:
                    found = error
            if problem is None or _says_more(found, problem):
                problem = found
        assert problem is not None  # noqa: S101 - there is a wrap, and none was believed
        raise type(problem)(row.tenant, "", row.id, problem.detail)

    def _open(self, row: KeyRow, wrap: Wrap, reference: KeyReference) -> bytearray:
        if row.digest is None:
            context = context_without_version(row.tenant, row.purpose, row.id)
        else:
            context = context_of(row.tenant, row.purpose, row.id, row.version, row.format)
        secret = self.regions.unwrap(reference, wrap.wrapped, context)
        if row.digest is None or hmac.compare_digest(secret_digest(secret), row.digest):
            return secret
        secret[:] = bytes(len(secret))
        raise WrapNotAuthentic(detail="it opens to another secret than the key was made with")


def _says_more(found: FieldError, problem: FieldError) -> bool:
    """Whether ``found`` is the better answer: a passing fault first, a wrap that is not ours last."""

    def rank(error: FieldError) -> int:
        return 0 if isinstance(error, ForeignKmsKey) else 2 if isinstance(error, PASSING) else 1

    return rank(found) > rank(problem)
