"""The data key of a backup, wrapped by the stage's backup key in AWS KMS.

The key is made here and wrapped with kms:Encrypt, so that who writes backups needs nothing else and
can't read them; who restores needs kms:Decrypt and nothing else. The encryption context names the
purpose and the backup: https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from kilo.backup.kms import KmsKey
from kilo.contract import BackupOutputs


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key and its wrapped form."""

    plaintext: bytes = field(repr=False)
    wrapped: str


class BackupKey:
    """The key of the contract that wraps data keys, and its replica in another region, if there is one."""

    def __init__(self, outputs: BackupOutputs) -> None:
        self._key = KmsKey("backups.encryption_key", (outputs.encryption_key, outputs.encryption_key_replica))

    @property
    def arn(self) -> str:
        """The key's own ARN."""
        return self._key.arn

    def make(self, context: dict[str, str]) -> DataKey:
        """Make a data key and wrap it, in the key's own region.

        Raises:
            CheckFailed: KMS denied it, or the key is disabled or gone.
            Unreachable: KMS does not answer.
        """
        plaintext = secrets.token_bytes(32)
        answer = self._key.call("encrypt", Plaintext=plaintext, EncryptionContext=context)
        return DataKey(plaintext, base64.b64encode(answer["CiphertextBlob"]).decode())

    def unwrap(self, wrapped: str, context: dict[str, str]) -> bytes:
        """Unwrap a data key; where the key's own region fails, by its replica. Raises as :meth:`make`."""
        blob = base64.b64decode(wrapped)
        answer = self._key.call("decrypt", CiphertextBlob=blob, EncryptionContext=context)
        return bytes(answer["Plaintext"])
