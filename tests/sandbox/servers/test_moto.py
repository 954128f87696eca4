"""A killed moto comes back with everything it acknowledged, to the byte."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from sandbox.servers.moto import MotoServer

REGION = "eu-central-1"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sandbox")
    moto = MotoServer(tmp_path)
    moto.start()
    yield moto
    moto.stop()


def _restart(server: MotoServer) -> None:
    server.kill()
    server.start()


def _client(server: MotoServer, service: str) -> Any:
    return boto3.client(service, endpoint_url=server.url, region_name=REGION)


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_keys_survive_with_their_material(server: MotoServer) -> None:
    kms = _client(server, "kms")
    key = kms.create_key(Description="tenant acme", Tags=[{"TagKey": "tenant", "TagValue": "acme"}])[
        "KeyMetadata"
    ]
    other = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/acme", TargetKeyId=key["KeyId"])
    kms.enable_key_rotation(KeyId=key["KeyId"], RotationPeriodInDays=365)
    context = {"tenant": "acme"}
    sealed = kms.encrypt(KeyId="alias/acme", Plaintext=b"a word", EncryptionContext=context)["CiphertextBlob"]
    data_key = kms.generate_data_key(KeyId=key["KeyId"], KeySpec="AES_256", EncryptionContext=context)
    kms.schedule_key_deletion(KeyId=other["KeyId"], PendingWindowInDays=7)
    asked: list[Callable[[], dict[str, Any]]] = [
        lambda: kms.describe_key(KeyId=key["KeyId"]),
        lambda: kms.describe_key(KeyId=other["KeyId"]),
        kms.list_aliases,
        lambda: kms.get_key_rotation_status(KeyId=key["KeyId"]),
        lambda: kms.list_resource_tags(KeyId=key["KeyId"]),
        lambda: kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default"),
    ]
    before = [_said(ask()) for ask in asked]
    _restart(server)
    assert [_said(ask()) for ask in asked] == before
    assert kms.decrypt(CiphertextBlob=sealed, EncryptionContext=context)["Plaintext"] == b"a word"
    opened = kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"], EncryptionContext=context)
    assert opened["Plaintext"] == data_key["Plaintext"]
    with pytest.raises(ClientError):
        kms.decrypt(CiphertextBlob=sealed, EncryptionContext={"tenant": "other"})


def test_no_two_keys_have_the_same_material(server: MotoServer) -> None:
    kms = _client(server, "kms")
    first, second = (kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2))
    _restart(server)
    third = kms.create_key()["KeyMetadata"]["KeyId"]
    assert len({first, second, third}) == 3
    secrets = [kms.encrypt(KeyId=first, Plaintext=b"same")["CiphertextBlob"] for _ in range(2)]
    assert secrets[0] != secrets[1], "an initialisation vector is never used twice"


def test_objects_survive_with_versions_and_locks(server: MotoServer) -> None:
    s3 = _client(server, "s3")
    bucket = {"Bucket": "vault"}
    place = {"LocationConstraint": REGION}
    s3.create_bucket(**bucket, CreateBucketConfiguration=place, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "COMPLIANCE", "Days": 3}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
    s3.put_object_lock_configuration(**bucket, ObjectLockConfiguration=lock)
    content = os.urandom(300_000)
    key = "backups/2026 ü/päge+1.dump"
    first = s3.put_object(
        **bucket, Key=key, Body=content, Metadata={"sha_256": "x"}, ChecksumAlgorithm="SHA256"
    )
    s3.put_object(**bucket, Key=key, Body=b"second")
    upload = s3.create_multipart_upload(**bucket, Key="big")["UploadId"]
    parts = [os.urandom(5 * 1024 * 1024), os.urandom(1000)]
    uploaded: list[dict[str, Any]] = []
    for number, part in enumerate(parts, 1):
        # A kill between two parts of an upload.
        if number == 2:
            _restart(server)
        answer = s3.upload_part(**bucket, Key="big", UploadId=upload, PartNumber=number, Body=part)
        uploaded.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(**bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": uploaded})
    asked: list[Callable[[], dict[str, Any]]] = [
        lambda: s3.list_object_versions(**bucket),
        lambda: s3.head_object(**bucket, Key=key, VersionId=first["VersionId"], ChecksumMode="ENABLED"),
        lambda: s3.get_object_lock_configuration(**bucket),
        s3.list_buckets,
    ]
    before = [_said(ask()) for ask in asked]
    assert before[1]["ObjectLockMode"] == "COMPLIANCE"
    assert before[1]["ObjectLockRetainUntilDate"] is not None
    _restart(server)
    assert [_said(ask()) for ask in asked] == before
    assert s3.get_object(**bucket, Key=key, VersionId=first["VersionId"])["Body"].read() == content
    assert s3.get_object(**bucket, Key="big")["Body"].read() == b"".join(parts)
    with pytest.raises(ClientError, match="Access Denied"):
        s3.delete_object(**bucket, Key=key, VersionId=first["VersionId"])


def test_everything_else_of_the_platform_survives(server: MotoServer) -> None:
    sqs, events, ecr = _client(server, "sqs"), _client(server, "events"), _client(server, "ecr")
    iam, secrets = _client(server, "iam"), _client(server, "secretsmanager")
    queue = sqs.create_queue(QueueName="pushes", Attributes={"VisibilityTimeout": "7"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="pushes", EventPattern='{"source": ["aws.ecr"]}')
    events.put_targets(Rule="pushes", Targets=[{"Id": "queue", "Arn": arn}])
    ecr.create_repository(repositoryName="team/app", imageTagMutability="IMMUTABLE")
    statement = {"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": arn}
    trust = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName="worker", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(
        RoleName="worker", PolicyName="own", PolicyDocument=json.dumps({**trust, "Statement": statement})
    )
    secrets.create_secret(Name="database", SecretString="a word")
    secrets.put_secret_value(SecretId="database", SecretString="another")
    asked: list[Callable[[], dict[str, Any]]] = [
        lambda: sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"],
        lambda: events.describe_rule(Name="pushes"),
        lambda: events.list_targets_by_rule(Rule="pushes"),
        ecr.describe_repositories,
        lambda: iam.get_role(RoleName="worker"),
        lambda: iam.get_role_policy(RoleName="worker", PolicyName="own"),
        lambda: secrets.describe_secret(SecretId="database"),
        lambda: secrets.get_secret_value(SecretId="database"),
    ]
    before = [_said(ask()) for ask in asked]
    _restart(server)
    assert [_said(ask()) for ask in asked] == before


def test_a_message_is_neither_lost_nor_back_after_it_was_deleted(server: MotoServer) -> None:
    sqs = _client(server, "sqs")
    queue = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    for body in ("one", "two", "three"):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    first = sqs.receive_message(QueueUrl=queue)["Messages"][0]
    second = sqs.receive_message(QueueUrl=queue)["Messages"][0]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    _restart(server)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"])
    _restart(server)
    left = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert {m["Body"] for m in left} == {"one", "two", "three"} - {first["Body"], second["Body"]}


def test_a_waiting_receiver_is_given_what_comes_and_holds_up_nobody(server: MotoServer) -> None:
    sqs = _client(server, "sqs")
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    received: list[str] = []

    def wait() -> None:
        answer = _client(server, "sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=20)
        received.extend(message["Body"] for message in answer.get("Messages", ()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    for _ in range(5):
        sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
    sqs.send_message(QueueUrl=queue, MessageBody="here")
    waiting.join()
    assert received == ["here"]


def test_changes_at_once_are_all_kept(server: MotoServer) -> None:
    s3 = _client(server, "s3")
    s3.create_bucket(Bucket="many", CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(number: int) -> None:
        client = _client(server, "s3")
        for index in range(10):
            client.put_object(Bucket="many", Key=f"{number}-{index}", Body=bytes([number, index]))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = _said(s3.list_object_versions(Bucket="many"))
    _restart(server)
    assert _said(s3.list_object_versions(Bucket="many")) == before
    assert len(before["Versions"]) == 60
    assert s3.get_object(Bucket="many", Key="3-7")["Body"].read() == bytes([3, 7])


def test_keys_that_were_made_at_once_keep_their_own_material(server: MotoServer) -> None:
    kms = _client(server, "kms")

    def make(number: int) -> tuple[bytes, bytes]:
        word = b"of thread %d" % number
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        return word, kms.encrypt(KeyId=key, Plaintext=word)["CiphertextBlob"]

    with ThreadPoolExecutor(16) as pool:
        sealed = list(pool.map(make, range(48)))
    _restart(server)
    assert [kms.decrypt(CiphertextBlob=blob)["Plaintext"] for _, blob in sealed] == [
        word for word, _ in sealed
    ]


def test_a_signing_key_survives_with_its_material(server: MotoServer) -> None:
    kms = _client(server, "kms")
    key, other = (
        kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"] for _ in "ab"
    )
    what = {"KeyId": key, "Message": b"a word", "SigningAlgorithm": "ECDSA_SHA_256"}
    signature = kms.sign(**what)["Signature"]
    public = kms.get_public_key(KeyId=key)["PublicKey"]
    assert public != kms.get_public_key(KeyId=other)["PublicKey"]
    _restart(server)
    assert kms.get_public_key(KeyId=key)["PublicKey"] == public
    assert kms.verify(**what, Signature=signature)["SignatureValid"]


def test_a_key_that_could_not_come_back_is_refused(server: MotoServer) -> None:
    with pytest.raises(ClientError, match="the sandbox keeps no key of RSA_2048"):
        _client(server, "kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")


def test_a_bucket_that_holds_objects_takes_another_default_retention(server: MotoServer) -> None:
    s3 = _client(server, "s3")
    s3.create_bucket(
        Bucket="locked",
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    s3.put_object(Bucket="locked", Key="object", Body=b"a word", ChecksumAlgorithm="SHA256")
    lock = {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}},
    }
    s3.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=lock)
    found = s3.get_object_lock_configuration(Bucket="locked")["ObjectLockConfiguration"]
    assert found["Rule"]["DefaultRetention"]["Days"] == 3
    s3.put_object_lock_configuration(
        Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    )
    assert "Rule" not in s3.get_object_lock_configuration(Bucket="locked")["ObjectLockConfiguration"]
