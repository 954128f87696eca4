"""Who opens a tenant's keys: identities, contexts, a second KMS, and a KMS that refuses or is not there."""

from __future__ import annotations

import json
from typing import Any

import boto3
import httpx
import pytest

from kilo.contract import KeyReference
from kilo.fle import FieldCipher, errors
from kilo.fle.formats import inspect
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import KeyTable
from kilo.fle.kms import AwsKms, KmsClients

from .conftest import Stage
from .test_keyring import CountingKms, cipher_of, keyring_of


@pytest.fixture
def kms() -> CountingKms:
    return CountingKms()


def test_a_wrap_does_not_open_in_another_tenant_s_context(stage: Stage, kms: CountingKms) -> None:
    """One KEK for many tenants (branch keys): the context is what keeps their wraps apart."""
    shared = stage.outputs.tenants["gold"].encryption_key
    keyring = Keyring(KeyTable(stage.url), KmsClients(aws=kms), {"gold": (shared,), "second": (shared,)})
    cipher = FieldCipher(keyring, {"gold": ["email"], "second": ["email"]}, "customers")
    values = {tenant: cipher.encrypt(tenant, "email", 1, "x") for tenant in ("gold", "second")}
    assert inspect(values["gold"]).key_id != inspect(values["second"]).key_id
    stage.past_triggers(
        "UPDATE fle_wraps w SET wrapped = o.wrapped FROM fle_wraps o WHERE w.key_id = 2 AND o.key_id = 1"
    )
    keyring.clear()
    assert cipher.decrypt("gold", "email", 1, values["gold"]) == "x"
    with pytest.raises(errors.WrapNotAuthentic):
        cipher.decrypt("second", "email", 1, values["second"])


def test_a_second_kms_opens_what_the_first_can_t(stage: Stage, kms: CountingKms) -> None:
    arn = boto3.client("kms", region_name="eu-north-1").create_key()["KeyMetadata"]["Arn"]
    second = KeyReference(provider="aws", key=arn, alias="second")
    cipher = FieldCipher.from_outputs(
        stage.outputs, stage.url, table="customers", kms=KmsClients(aws=kms), second={"gold": second}
    )
    value = cipher.encrypt("gold", "email", 1, "x")
    assert kms.wraps == 2
    stage.destroy_kms_key("gold")
    cipher.keyring.clear()
    assert cipher.decrypt("gold", "email", 1, value) == "x"


def test_a_second_key_of_the_stage_s_configuration_is_used_without_being_asked_for(
    stage: Stage, kms: CountingKms
) -> None:
    arn = boto3.client("kms", region_name="eu-north-1").create_key()["KeyMetadata"]["Arn"]
    second = {"gold": KeyReference(provider="aws", key=arn, alias="second")}
    settings = stage.outputs.field_encryption.model_copy(update={"second_keys": second})
    outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    before = stage.cipher().encrypt("gold", "email", 1, "x")
    cipher = FieldCipher.from_outputs(outputs, stage.url, table="customers", kms=KmsClients(aws=kms))
    cipher.keyring.rewrap("gold")
    assert stage.sql("SELECT count(*) FROM fle_wraps WHERE kms_key = %s", arn) == [(1,)]
    stage.destroy_kms_key("gold")
    assert cipher.decrypt("gold", "email", 1, before) == "x"


@pytest.fixture
def enforced(moto_url: str) -> Any:
    """IAM is enforced from here on, and not any more afterwards."""
    yield lambda: httpx.post(f"{moto_url}/moto-api/reset-auth", content=b"0").raise_for_status()
    httpx.post(f"{moto_url}/moto-api/reset-auth", content=b"inf").raise_for_status()


def test_an_identity_without_the_right_is_denied(stage: Stage, enforced: Any) -> None:
    """A consumer may decrypt; it can't make a key, nor encrypt with one whose wrap it may not open.

    The server here evaluates actions, and neither resources nor conditions: that a workload reaches only
    its tenants' keys is shown on the policies themselves, in the tests of the component that makes them.
    """
    value = stage.cipher().encrypt("gold", "email", 1, "x")
    reader = cipher_of(stage, keyring_of(stage, AwsKms(session_with(stage, "kms:Decrypt"))))
    writer = cipher_of(stage, keyring_of(stage, AwsKms(session_with(stage, "kms:Encrypt"))))
    enforced()
    assert reader.decrypt("gold", "email", 1, value) == "x"
    with pytest.raises(errors.KmsDenied, match="second/email"):
        reader.encrypt("second", "email", 1, "x")
    with pytest.raises(errors.KmsDenied, match="gold/email"):
        writer.decrypt("gold", "email", 1, value)


def session_with(stage: Stage, action: str) -> boto3.Session:
    iam = boto3.client("iam")
    name = f"{action.replace(':', '-')}-{stage.url.rpartition('/')[2]}"
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="use", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name="eu-central-1")


def test_kms_out_of_reach_is_its_own_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(errors.KmsUnavailable, match="gold/email"):
        stage.cipher().encrypt("gold", "email", 1, "x")


def test_missing_credentials_are_a_denial(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.KmsDenied, match="credentials"):
        stage.cipher().encrypt("gold", "email", 1, "x")
