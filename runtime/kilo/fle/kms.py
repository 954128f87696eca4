"""Wrapping data keys with a cloud's KMS.

AWS KMS gets the tenant, purpose, key id, version and format as encryption context, Google Cloud KMS as
additional authenticated data: a wrapped key that is moved to another tenant's row does not unwrap. Endpoints,
credentials and regions come from the clouds' own standard variables; a key's region from its ARN.

Left out: retries of our own (both SDKs have theirs), and any caching (that is the keyring's).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from prometheus_client import REGISTRY

from kilo.fle.errors import (
    FieldError,
    KmsDenied,
    KmsKeyUnusable,
    KmsThrottled,
    KmsUnavailable,
    WrapNotAuthentic,
)
from kilo.observe.metrics import FLE_KMS_CALL_DURATION, FLE_KMS_CALLS

Context = Mapping[str, str]

_CALLS = FLE_KMS_CALLS.create(REGISTRY)
_DURATION = FLE_KMS_CALL_DURATION.create(REGISTRY)

_AWS_ERRORS: dict[str, type[FieldError]] = {
    "AccessDeniedException": KmsDenied,
    "AccessDenied": KmsDenied,
    "UnrecognizedClientException": KmsDenied,
    "InvalidClientTokenId": KmsDenied,
    "ExpiredTokenException": KmsDenied,
    "DisabledException": KmsKeyUnusable,
    "KMSInvalidStateException": KmsKeyUnusable,
    "NotFoundException": KmsKeyUnusable,
    "ThrottlingException": KmsThrottled,
    "LimitExceededException": KmsThrottled,
    "RequestLimitExceeded": KmsThrottled,
    "InvalidCiphertextException": WrapNotAuthentic,
    "IncorrectKeyException": WrapNotAuthentic,
}
# For codes that are not in the list, such as those of a proxy in between.
_BY_STATUS: dict[int, type[FieldError]] = {401: KmsDenied, 403: KmsDenied, 429: KmsThrottled}
# https://grpc.io/docs/guides/status-codes/ as google.api_core names them.
_GCP_ERRORS: dict[str, type[FieldError]] = {
    "PermissionDenied": KmsDenied,
    "Forbidden": KmsDenied,
    "Unauthenticated": KmsDenied,
    "DefaultCredentialsError": KmsDenied,
    "NotFound": KmsKeyUnusable,
    "FailedPrecondition": KmsKeyUnusable,
    "ResourceExhausted": KmsThrottled,
    "TooManyRequests": KmsThrottled,
    "InvalidArgument": WrapNotAuthentic,
    "BadRequest": WrapNotAuthentic,
}


# Waiting for KMS ends within seconds: a value's reader waits that long once in a key's age.
_PATIENCE_SECONDS = 5.0
_PATIENCE = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 2})


KeyState = Literal["enabled", "disabled", "pending-deletion", "gone"]
KEY_STATES: tuple[KeyState, ...] = ("enabled", "disabled", "pending-deletion", "gone")

# What is not here is as good as disabled.
# https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
_AWS_STATES: dict[str, KeyState] = {
    "Enabled": "enabled",
    "PendingDeletion": "pending-deletion",
    "PendingReplicaDeletion": "pending-deletion",
}
# https://cloud.google.com/kms/docs/key-states
_GCP_STATES: dict[str, KeyState] = {
    "ENABLED": "enabled",
    "DESTROY_SCHEDULED": "pending-deletion",
    "DESTROYED": "gone",
}


class Kms(Protocol):
    """What a key management service does for us. Each call raises one of the Kms errors."""

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        """Encrypt ``secret`` (at most 4 KiB) under ``key``, bound to ``context``."""
        ...

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        """Decrypt what :meth:`wrap` returned; only under the same key and context."""
        ...

    def state(self, key: str) -> KeyState:
        """Whether ``key`` can be used, as its administrators left it."""
        ...


class AwsKms:
    """AWS KMS. One client a region, made again after a fork (connections must not be shared)."""

    def __init__(self, session: boto3.Session | None = None) -> None:
        self._session = session
        self._clients: dict[tuple[int, str], Any] = {}

    def _client(self, key: str) -> Any:
        parts = key.split(":")
        region = parts[3] if key.startswith("arn:") and len(parts) > 4 else ""
        place = (os.getpid(), region)
        client = self._clients.get(place)
        if client is None:
            # Without a lock, which a fork could leave held: two threads may each make one, and one is kept.
            session = self._session or boto3.Session()
            made = session.client("kms", region_name=region or None, config=_PATIENCE)
            client = self._clients.setdefault(place, made)
        return client

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        """See :class:`Kms`."""
        answer = self._call(
            "wrap",
            context,
            lambda: self._client(key).encrypt(
                KeyId=key, Plaintext=bytes(secret), EncryptionContext=dict(context)
            ),
        )
        return answer["CiphertextBlob"]

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        """See :class:`Kms`."""
        answer = self._call(
            "unwrap",
            context,
            lambda: self._client(key).decrypt(
                KeyId=key, CiphertextBlob=wrapped, EncryptionContext=dict(context)
            ),
        )
        return bytearray(answer["Plaintext"])

    def state(self, key: str) -> KeyState:
        """See :class:`Kms`."""
        try:
            answer = self._call("describe", {}, lambda: self._client(key).describe_key(KeyId=key))
        except KmsKeyUnusable:
            return "gone"
        return _AWS_STATES.get(answer["KeyMetadata"]["KeyState"], "disabled")

    @staticmethod
    def _call(operation: str, context: Context, call: Callable[[], Any]) -> Any:
        # Errors are raised outside of the handlers: a traceback must not lead to a request's locals.
        problem: FieldError
        try:
            return _counted(operation, context, call)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            problem = _AWS_ERRORS.get(code, _BY_STATUS.get(status, KmsUnavailable))(detail=code)
        except NoCredentialsError:
            problem = KmsDenied(detail="no AWS credentials were found")
        except BotoCoreError as error:
            problem = KmsUnavailable(detail=type(error).__name__)
        raise problem


class GcpKms:
    """Google Cloud KMS (``pip install kilo[gcp]``). CRC32C sums guard the way there and back."""

    def __init__(self, client: Any = None) -> None:
        self._given = client
        self._clients: dict[int, Any] = {}

    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        client = self._clients.get(os.getpid())
        if client is None:
            from google.cloud import kms_v1  # noqa: PLC0415 - an extra that only some stages install

            client = self._clients.setdefault(os.getpid(), kms_v1.KeyManagementServiceClient())
        return client

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        """See :class:`Kms`."""
        bound = _canonical(context)
        request = {
            "name": key,
            "plaintext": bytes(secret),
            "plaintext_crc32c": _crc32c(bytes(secret)),
            "additional_authenticated_data": bound,
            "additional_authenticated_data_crc32c": _crc32c(bound),
        }
        answer = self._call("wrap", context, lambda: self._ask("encrypt", request))
        verified = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not verified or _crc32c(answer.ciphertext) != int(answer.ciphertext_crc32c):
            raise KmsUnavailable(detail="the request or its answer was corrupted on the way")
        return bytes(answer.ciphertext)

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        """See :class:`Kms`."""
        bound = _canonical(context)
        request = {
            "name": key,
            "ciphertext": wrapped,
            "ciphertext_crc32c": _crc32c(wrapped),
            "additional_authenticated_data": bound,
            "additional_authenticated_data_crc32c": _crc32c(bound),
        }
        answer = self._call("unwrap", context, lambda: self._ask("decrypt", request))
        if _crc32c(answer.plaintext) != int(answer.plaintext_crc32c):
            raise KmsUnavailable(detail="the answer was corrupted on the way")
        return bytearray(answer.plaintext)

    def state(self, key: str) -> KeyState:
        """See :class:`Kms`. The primary version's state, which is what wraps."""
        try:
            answer = self._call("describe", {}, lambda: self._ask("get_crypto_key", {"name": key}))
        except KmsKeyUnusable:
            return "gone"
        return _GCP_STATES.get(answer.primary.state.name, "disabled")

    def _ask(self, method: str, request: dict[str, Any]) -> Any:
        from google.api_core import exceptions, retry  # noqa: PLC0415 - comes with the gcp extra

        again = retry.if_exception_type(exceptions.ServiceUnavailable, exceptions.DeadlineExceeded)
        policy = retry.Retry(again, initial=0.1, maximum=0.5, timeout=_PATIENCE_SECONDS)
        # Without these the library waits for a minute.
        call = getattr(self._client(), method)
        return call(request=request, retry=policy, timeout=_PATIENCE_SECONDS / 2)

    @staticmethod
    def _call(operation: str, context: Context, call: Callable[[], Any]) -> Any:
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - comes with the gcp extra
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - comes with the gcp extra

        problem: FieldError
        try:
            return _counted(operation, context, call)
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            name = type(error).__name__
            problem = _GCP_ERRORS.get(name, KmsUnavailable)(detail=name)
        raise problem


def _counted(operation: str, context: Context, call: Callable[[], Any]) -> Any:
    _CALLS.labels(context.get("tenant", ""), operation).inc()
    with _DURATION.labels(operation).time():
        return call()


def _canonical(context: Context) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()


def _crc32c(data: bytes) -> int:
    import google_crc32c  # noqa: PLC0415 - comes with the gcp extra

    return google_crc32c.value(data)


class KmsClients:
    """The KMS of each provider, under one principal's credentials; made when first used."""

    def __init__(self, aws: Kms | None = None, gcp: Kms | None = None) -> None:
        self._aws, self._gcp = aws, gcp

    def of(self, provider: str) -> Kms:
        """The KMS of ``provider``: ``aws`` or ``gcp``."""
        if provider == "aws":
            self._aws = self._aws or AwsKms()
            return self._aws
        self._gcp = self._gcp or GcpKms()
        return self._gcp


def context_of(tenant: str, purpose: str, key_id: int, version: int, format_version: int) -> dict[str, str]:
    """What a data key's wrap is bound to; key policies require ``tenant``."""
    return {
        **context_without_version(tenant, purpose, key_id),
        "key-version": str(version),
        "key-format": str(format_version),
    }


def context_without_version(tenant: str, purpose: str, key_id: int) -> dict[str, str]:
    """What wraps were bound to before key rows had a digest."""
    return {"tenant": tenant, "purpose": purpose, "key-id": str(key_id)}
