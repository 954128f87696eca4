"""The data key of a backup, wrapped by the stage's backup key in AWS KMS.

The key is made here and wrapped with kms:Encrypt, so that who writes backups needs nothing else and
can't read them; who restores needs kms:Decrypt and nothing else. The encryption context names the
purpose and the backup: https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runtime.contract import BackupOutputs, KeyReference
from runtime.errors import BadInput, CheckFailed, KiloError, Unreachable

_FORBIDDEN = 403
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "DisabledException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key and its wrapped form."""

    plaintext: bytes = field(repr=False)
    wrapped: str


class BackupKey:
    """The key of the contract that wraps data keys, and its replica in another region, if there is one."""

    def __init__(self, outputs: BackupOutputs) -> None:
        references = [outputs.encryption_key]
        if outputs.encryption_key_replica:
            references.append(outputs.encryption_key_replica)
        self._regions = [_KeyInRegion(reference) for reference in references]

    @property
    def arn(self) -> str:
        """The key's own ARN."""
        return self._regions[0].arn

    def make(self, context: dict[str, str]) -> DataKey:
        """Make a data key and wrap it, in the key's own region.

        Raises:
            CheckFailed: KMS denied it, or the key is disabled or gone.
            Unreachable: KMS does not answer.
        """
        plaintext = secrets.token_bytes(32)
        answer = self._regions[0].call("encrypt", Plaintext=plaintext, EncryptionContext=context)
        return DataKey(plaintext, base64.b64encode(answer["CiphertextBlob"]).decode())

    def unwrap(self, wrapped: str, context: dict[str, str]) -> bytes:
        """Unwrap a data key; where the key's own region fails, by its replica. Raises as :meth:`make`."""
        blob = base64.b64decode(wrapped)
        errors: list[KiloError] = []
        for region in self._regions:
            try:
                answer = region.call("decrypt", CiphertextBlob=blob, EncryptionContext=context)
            except KiloError as error:
                errors.append(error)
                continue
            return bytes(answer["Plaintext"])
        raise errors[0]


class _KeyInRegion:
    """A KMS key where its ARN says."""

    def __init__(self, reference: KeyReference) -> None:
        if reference.provider != "aws":
            msg = f"backups.encryption_key.provider: {reference.provider!r}; data keys are wrapped by AWS KMS"
            raise BadInput(msg)
        self.arn = reference.key
        self._client: Any = boto3.client(
            "kms",
            region_name=_region(reference.key),
            config=Config(
                retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=20
            ),
        )

    def call(self, action: str, **arguments: object) -> dict[str, Any]:
        try:
            return getattr(self._client, action)(KeyId=self.arn, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            msg = f"backup key {self.arn}: kms:{action.capitalize()} failed: {code}"
            if code in _DENIED or status == _FORBIDDEN:
                raise CheckFailed(msg) from error
            raise Unreachable(msg) from error
        except BotoCoreError as error:
            msg = f"backup key {self.arn}: KMS does not answer: {error}"
            raise Unreachable(msg) from error


def _region(arn: str) -> str:
    parts = arn.split(":")
    if len(parts) < 6 or parts[2] != "kms":
        msg = f"backups.encryption_key.key: {arn!r} is no KMS key ARN"
        raise BadInput(msg)
    return parts[3]
