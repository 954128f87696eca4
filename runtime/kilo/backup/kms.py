"""A key of AWS KMS and its replicas in other regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kilo.contract import KeyReference
from kilo.errors import BadInput, CheckFailed, KiloError, Unreachable

_ATTEMPTS = 4
_FORBIDDEN = 403
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "DisabledException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)


class KmsKey:
    """One key, known in one region or in several.

    Args:
        place: where the contract has the key, such as ``backups.signing_key``.
        references: the key's own region first.

    Raises:
        BadInput: the contract names no key of AWS KMS there.
    """

    def __init__(self, place: str, references: Sequence[KeyReference | None]) -> None:
        self._regions = [_KeyInRegion(place, reference) for reference in references if reference]
        if not self._regions:
            msg = f"{place}: the stage's outputs name no such key; bring the stage up with this version"
            raise BadInput(msg)

    @property
    def arn(self) -> str:
        """The key's own ARN."""
        return self._regions[0].arn

    def call(self, action: str, **arguments: object) -> dict[str, Any]:
        """Ask for ``action``, by the name of boto3's method, in the key's own region or else its replicas'.

        What one region's key wraps or signs, every other opens or verifies.

        Raises:
            CheckFailed: KMS denied it, or the key is disabled or gone.
            Unreachable: KMS does not answer.
        """
        errors: list[KiloError] = []
        for region in self._regions:
            try:
                return region.call(action, **arguments)
            except KiloError as error:
                errors.append(error)
        raise errors[0]


class _KeyInRegion:
    """A KMS key where its ARN says."""

    def __init__(self, place: str, reference: KeyReference) -> None:
        if reference.provider != "aws":
            msg = f"{place}.provider: {reference.provider!r}; backups use keys of AWS KMS"
            raise BadInput(msg)
        self.arn = reference.key
        self._client: Any = boto3.client(
            "kms",
            region_name=_region(place, reference.key),
            config=Config(
                retries={"mode": "standard", "max_attempts": _ATTEMPTS}, connect_timeout=5, read_timeout=20
            ),
        )

    def call(self, action: str, **arguments: object) -> dict[str, Any]:
        name = "".join(word.capitalize() for word in action.split("_"))
        try:
            return getattr(self._client, action)(KeyId=self.arn, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            msg = f"backup key {self.arn}: kms:{name} failed: {code}"
            if code in _DENIED or status == _FORBIDDEN:
                raise CheckFailed(msg) from error
            raise Unreachable(msg) from error
        except BotoCoreError as error:
            msg = f"backup key {self.arn}: KMS does not answer: {error}"
            raise Unreachable(msg) from error


def _region(place: str, arn: str) -> str:
    parts = arn.split(":")
    if len(parts) < 6 or parts[2] != "kms":
        msg = f"{place}.key: {arn!r} is no KMS key ARN"
        raise BadInput(msg)
    return parts[3]
