"""One exception type for each way in which field encryption can fail.

Every error names the reason class, the tenant, the field and, where there is one, the key's id. None
carries the value, the row's id or key material, and none is chained to an exception that does: what
reaches a log or a trace is safe to keep.
"""

from __future__ import annotations

from typing import ClassVar

from kilo.errors import ExitCode, KiloError, RoleDenied


class FieldError(KiloError):
    """Base of all field encryption errors.

    Attributes:
        reason: the reason class, a stable slug that metrics are labelled with.
        tenant: whose value it is.
        field: which field it is.
        key_id: the data key's number, where the failure concerns one.
    """

    reason: ClassVar[str] = "unknown"
    text: ClassVar[str] = "field encryption failed"

    def __init__(
        self, tenant: str = "", field: str = "", key_id: int | None = None, detail: str = ""
    ) -> None:
        self.tenant, self.field, self.key_id, self.detail = tenant, field, key_id, detail
        place = "/".join(part for part in (tenant, field) if part)
        key = f" (key {key_id})" if key_id is not None else ""
        more = f": {detail}" if detail else ""
        super().__init__(f"{place + ': ' if place else ''}{self.text}{more}{key}")

    def at(self, tenant: str, field: str) -> FieldError:
        """The same error, naming where it happened."""
        return type(self)(tenant, field, self.key_id, self.detail)

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str, int | None, str]]:
        return type(self), (self.tenant, self.field, self.key_id, self.detail)


class PlaintextFound(FieldError):
    """The value has nothing of an encrypted value's form: it is not base64 and does not begin like one."""

    reason = "plaintext"
    text = (
        "the value is not base64: it is plain text where an encrypted value is due "
        "(`kilo fle rotate plan --kind adopt` encrypts what was stored before)"
    )


class NotBase64(FieldError):
    """The value begins like an encrypted value but is not canonical base64 (RFC 4648, section 4)."""

    reason = "not-base64"
    text = "the encrypted value is not canonical base64"


class TooShort(FieldError):
    """The value is shorter than the shortest value of its format."""

    reason = "too-short"
    text = "the encrypted value is too short: it has been cut off, or is no encrypted value"


class TooLong(FieldError):
    """The plaintext is larger than a field may be."""

    reason = "too-long"
    text = "the value is too large for an encrypted field"


class NotText(FieldError):
    """Text was asked for or given, and the value is not text in UTF-8."""

    reason = "not-text"
    text = "the value is not UTF-8 text; use bytes (decrypt_bytes)"


class UnknownVersion(FieldError):
    """The first byte names no format that this version reads."""

    reason = "unknown-version"
    text = "the encrypted value's format version is unknown"


class UnknownSuite(FieldError):
    """The second byte of a v2 value names no cipher suite that this version reads."""

    reason = "unknown-suite"
    text = "the encrypted value's cipher suite is unknown"


class WrongSuite(FieldError):
    """The value was made by another cipher suite than the field's: AES-SIV where it is not, or the reverse.

    An AES-SIV value binds no row, so one that is searched for elsewhere could be put into any row.
    """

    reason = "wrong-suite"
    text = (
        "the encrypted value's cipher suite is not the field's "
        "(name a field whose column is AES-SIV in the cipher's `deterministic`)"
    )


class UnknownKey(FieldError):
    """The key table has no key of this id, or the tenant has no key of this format."""

    reason = "unknown-key"
    text = "the encrypted value names a key that is not in the key table"


class WrongTenant(FieldError):
    """The value was encrypted for another tenant."""

    reason = "wrong-tenant"
    text = "the encrypted value belongs to another tenant's key"


class WrongKey(FieldError):
    """The key commitment does not match: the value was made under other key material."""

    reason = "wrong-key"
    text = "the encrypted value was made under another key"


class NotAuthentic(FieldError):
    """The tag does not match: altered, or moved from another tenant, table, field or row."""

    reason = "not-authentic"
    text = "the encrypted value was altered, or belongs to another tenant, table, field or row"


class Downgraded(FieldError):
    """The value's key is older than the tenant's minimum: a value of before the last rotation."""

    reason = "downgraded"
    text = "the encrypted value's key is below the tenant's minimum version"


class KeyDestroyed(FieldError):
    """The data key was destroyed; what it encrypted can't be read again."""

    reason = "key-destroyed"
    text = "the data key was destroyed"


class KeyExhausted(FieldError):
    """The key has encrypted as many messages as its nonces allow; it must be rotated."""

    reason = "key-exhausted"
    text = "the data key has reached its message limit; rotate it with `kilo fle rotate`"


class OutOfScope(FieldError):
    """The stage's configuration does not encrypt this field for this tenant."""

    reason = "out-of-scope"
    text = "the field is not among the tenant's encrypted_fields and lies encrypted nowhere"


class UnknownTenant(FieldError):
    """The tenant is not in the stack's outputs."""

    reason = "unknown-tenant"
    text = "the tenant is not in the stack's outputs"


class KmsDenied(FieldError):
    """KMS refused: the identity may not use the key, or not with this encryption context."""

    exit_code = ExitCode.UNREACHABLE
    reason = "kms-denied"
    text = "KMS denied the use of the tenant's key"


class KmsKeyUnusable(FieldError):
    """The KMS key is disabled, pending deletion or gone."""

    exit_code = ExitCode.UNREACHABLE
    reason = "kms-key-unusable"
    text = "the tenant's KMS key is disabled, scheduled for deletion or gone"


class KmsThrottled(FieldError):
    """KMS refused for now: too many requests."""

    exit_code = ExitCode.UNREACHABLE
    reason = "kms-throttled"
    text = "KMS throttled the request; try again"


class KmsUnavailable(FieldError):
    """KMS could not be reached, and the cache may not serve the key any longer."""

    exit_code = ExitCode.UNREACHABLE
    reason = "kms-unavailable"
    text = "KMS could not be reached"


class WrapNotAuthentic(FieldError):
    """KMS says that the wrapped key was altered or wrapped in another context."""

    reason = "wrap-not-authentic"
    text = "the wrapped data key was altered, or was wrapped for another tenant or purpose"


class ForeignKmsKey(FieldError):
    """The key has no wrap under a KMS key that the stage's outputs name for the tenant."""

    reason = "foreign-kms-key"
    text = "the wrapped data key lies under a KMS key that is not the tenant's in the stage's outputs"


class KeyRetired(FieldError):
    """The key was retired while a writer held it; the writer's next use fetches the active one."""

    reason = "key-retired"
    text = "the data key was retired; try again, which fetches the active one"


class SecretInUse(FieldError):
    """The secret is that of another key already: of another tenant, or of this one."""

    reason = "secret-in-use"
    text = "the secret is another key's already"


class KeyTableDenied(FieldError, RoleDenied):
    """The database refused: the role may not do that to the key table."""

    exit_code = ExitCode.BAD_INPUT
    reason = "key-table-denied"
    text = "the database role may not do that to the key table"


class KeyTableUnavailable(FieldError):
    """The database with the key table could not be reached."""

    exit_code = ExitCode.UNREACHABLE
    reason = "key-table-unavailable"
    text = "the key table could not be reached"
