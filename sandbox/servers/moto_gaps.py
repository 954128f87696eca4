"""What moto leaves out of S3's object lock and bucket policies, and of KMS, filled in as the APIs have it.

- An object that was uploaded in parts gets the bucket's default retention, as any other does.
- A bucket with object lock takes another default retention whatever lies in it; moto wants it empty:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock-configure.html
- GetObjectRetention is answered; moto takes it for GetObject and sends the whole object.
- With access control on, retention and lock configuration are asked for by their own permissions:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
- Conditions of bucket policies are evaluated where they are about TLS, conditional writes or retention;
  moto takes a Deny whose condition it does not know for a Deny of everything:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
- What a multi-region key has encrypted can be decrypted, in each of its regions; moto cuts off the end of
  such a key's id in the ciphertext.
- Audiences are added to an OIDC provider and taken away.
- A signing key of an elliptic curve is the same after a replay, since it comes of the bytes that replays
  repeat; moto leaves it to OpenSSL, and makes an RSA key of every symmetric key, a tenth of a second each.
"""

from __future__ import annotations

import fnmatch
import json
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

SIGNING_SPECS = ("ECC_NIST_P256",)
"""Specs of asymmetric keys that are kept."""
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SHORT_ID = 36
"""Characters of a key's id without its ``mrk-``."""
_NO_RETENTION = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchObjectLockConfiguration</Code>'
    "<Message>The specified object does not have a ObjectLock configuration</Message></Error>"
)


def fill() -> None:
    """Change moto in this process."""
    fill_kms()
    _fill_s3()
    _fill_lock_configuration()
    _fill_audiences()


def _fill_audiences() -> None:
    from moto.core.responses import EmptyResult  # noqa: PLC0415
    from moto.iam.responses import IamResponse  # noqa: PLC0415

    def found(response: Any) -> tuple[list[str], str]:
        arn = response._get_param("OpenIDConnectProviderArn")
        audiences = response.backend.get_open_id_connect_provider(arn).client_id_list
        return audiences, response._get_param("ClientID")

    def add(response: Any) -> Any:
        audiences, audience = found(response)
        if audience not in audiences:
            audiences.append(audience)
        return EmptyResult()

    def remove(response: Any) -> Any:
        audiences, audience = found(response)
        if audience in audiences:
            audiences.remove(audience)
        return EmptyResult()

    responses: Any = IamResponse
    responses.add_client_id_to_open_id_connect_provider = add
    responses.remove_client_id_from_open_id_connect_provider = remove


def fill_kms() -> None:
    """Change moto's KMS in this process."""
    from moto.kms import models as models_module  # noqa: PLC0415

    models: Any = models_module
    encrypt, decrypt = models.encrypt, models.decrypt

    def encrypt_by_short_id(master_keys: dict[str, Any], key_id: str, **arguments: Any) -> Any:
        by_short_id = {known[-_SHORT_ID:]: key for known, key in master_keys.items()}
        return encrypt(master_keys=by_short_id, key_id=key_id[-_SHORT_ID:], **arguments)

    def decrypt_by_short_id(master_keys: dict[str, Any], **arguments: Any) -> Any:
        by_short_id = {known[-_SHORT_ID:]: key for known, key in master_keys.items()}
        plaintext, short_id = decrypt(master_keys=by_short_id, **arguments)
        return plaintext, next(known for known in master_keys if known.endswith(short_id))

    models.encrypt, models.decrypt = encrypt_by_short_id, decrypt_by_short_id
    models.generate_private_key = _private_key


def _private_key(key_spec: str) -> Any:
    from moto.kms.utils import ECDSAPrivateKey  # noqa: PLC0415

    if key_spec not in SIGNING_SPECS:
        return None
    key = ECDSAPrivateKey(key_spec)
    curve = key.private_key.curve
    # 64 bits more than the curve has, so that no scalar is likelier than another (FIPS 186-5, A.2.1).
    number = int.from_bytes(os.urandom(curve.key_size // 8 + 8), "big")
    key.private_key = ec.derive_private_key(number % (_P256_ORDER - 1) + 1, curve)
    return key


def _fill_s3() -> None:
    # moto must see the controlled clock, so it is imported late. What is changed is its inside.
    from moto.iam.access_control import PermissionResult  # noqa: PLC0415
    from moto.s3 import exceptions, models  # noqa: PLC0415
    from moto.s3 import responses as responses_module  # noqa: PLC0415

    responses: Any = responses_module
    actions = responses.ACTION_MAP
    actions["BUCKET"]["GET"]["object-lock"] = "GetBucketObjectLockConfiguration"
    actions["KEY"]["GET"]["retention"] = "GetObjectRetention"
    actions["KEY"]["PUT"]["retention"] = "PutObjectRetention"
    asked = threading.local()

    complete: Any = models.S3Backend.complete_multipart_upload

    def complete_multipart_upload(self: Any, bucket_name: str, *arguments: Any) -> Any:
        key = complete(self, bucket_name, *arguments)
        bucket = self.get_bucket(bucket_name)
        if key is not None and bucket.object_lock_enabled and bucket.has_default_lock:
            key.lock_mode, key.lock_until = bucket.default_lock_mode, bucket.default_retention()
        return key

    get = responses.S3Response._key_response_get

    def key_response_get(self: Any, query: dict[str, Any], key_name: str) -> Any:
        if "retention" not in query:
            return get(self, query, key_name)
        self._set_action("KEY", "GET", query)
        self._authenticate_and_authorize_s3_action(bucket_name=self.bucket_name, key_name=key_name)
        version = query.get("versionId", [None])[0]
        key = self.backend.get_object(self.bucket_name, key_name, version_id=version)
        if key is None:
            raise exceptions.MissingKey(key=key_name)
        if key.lock_mode is None:
            return 404, {}, _NO_RETENTION
        retention = f"<Mode>{key.lock_mode}</Mode><RetainUntilDate>{key.lock_until}</RetainUntilDate>"
        return 200, {}, f'<?xml version="1.0" encoding="UTF-8"?><Retention>{retention}</Retention>'

    key_response = responses.S3Response.key_response

    def remember(self: Any, request: Any, full_url: str, headers: Any) -> Any:
        asked.request = request
        try:
            return key_response(self, request, full_url, headers)
        finally:
            del asked.request

    def get_permission(self: Any, action: str, resource: str) -> Any:
        request = getattr(asked, "request", None)
        context: Mapping[str, str] = {}
        if request is not None:
            query = parse_qs(urlsplit(request.url).query, keep_blank_values=True)
            words = actions["KEY"].get(request.method, {})
            found = [words[word] for word in words if word in query]
            action = f"s3:{(found or [words.get('DEFAULT', '')])[-1]}"
            context = _context(request.method, query, request.headers)
        effects = _effects(json.loads(self.policy or '{"Statement": []}'), action, resource, context)
        if "Deny" in effects:
            return PermissionResult.DENIED
        return PermissionResult.PERMITTED if effects else PermissionResult.NEUTRAL

    models.S3Backend.complete_multipart_upload = complete_multipart_upload  # type: ignore[method-assign]
    models.FakeBucket.get_permission = get_permission  # type: ignore[method-assign]
    responses.S3Response._key_response_get = key_response_get
    responses.S3Response.key_response = remember


def _fill_lock_configuration() -> None:
    from moto.s3 import models  # noqa: PLC0415

    configure: Any = models.S3Backend.put_object_lock_configuration

    def put_object_lock_configuration(self: Any, bucket_name: str, enabled: bool, *retention: Any) -> None:
        bucket = self.get_bucket(bucket_name)
        if not bucket.object_lock_enabled:
            configure(self, bucket_name, enabled, *retention)
            return
        mode, days, years = (*retention, None, None, None)[:3]
        bucket.default_lock_mode, bucket.default_lock_days, bucket.default_lock_years = mode, days, years

    models.S3Backend.put_object_lock_configuration = put_object_lock_configuration  # type: ignore[method-assign]


def _context(method: str, query: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    """The condition keys of a request for an object."""
    creates = (method == "PUT" and not query) or (method == "POST" and "uploadId" in query)
    # The sandbox speaks plain HTTP on loopback addresses in place of a cloud that speaks TLS.
    context = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": str(creates).lower()}
    if (condition := headers.get("If-None-Match")) is not None:
        context["s3:if-none-match"] = condition
    if until := headers.get("x-amz-object-lock-retain-until-date"):
        days = (datetime.fromisoformat(until.replace("Z", "+00:00")) - datetime.now(UTC)).total_seconds()
        context["s3:object-lock-remaining-retention-days"] = str(days / 86_400)
    return context


def _effects(policy: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> set[str]:
    """The effects of the statements that are for everybody and match."""

    def matches(patterns: str | list[str], value: str) -> bool:
        listed = [patterns] if isinstance(patterns, str) else patterns
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in listed)

    statements = policy["Statement"]
    return {
        statement["Effect"]
        for statement in ([statements] if isinstance(statements, dict) else statements)
        if statement.get("Principal") in ("*", {"AWS": "*"})
        and matches(statement.get("Action", []), action)
        and matches(statement.get("Resource", []), resource)
        and all(
            _OPERATORS[operator](context.get(key), expected)
            for operator, keys in statement.get("Condition", {}).items()
            for key, expected in keys.items()
        )
    }


_OPERATORS: Mapping[str, Callable[[str | None, Any], bool]] = {
    "Bool": lambda actual, expected: actual == str(expected).lower(),
    "Null": lambda actual, expected: (actual is None) == (str(expected).lower() == "true"),
    "NumericGreaterThan": lambda actual, expected: actual is not None and float(actual) > float(expected),
    "StringEquals": lambda actual, expected: actual == expected,
}
