"""Manifests are signed by a key that never leaves KMS; what it did not sign is refused by name."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from kilo.backup.catalogue import read_catalogue, read_manifest
from kilo.backup.cli import app
from kilo.backup.keys import BackupKey
from kilo.backup.manifest import Manifest
from kilo.backup.signatures import Signature, Verifier, statement
from kilo.backup.stores import Store
from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from tests.runtime.backup.conftest import REGION, make_signing_key
from tests.runtime.backup.test_backup import back_up, checks_of, wrong

Stores = dict[str, Store]
Change = Callable[[Manifest, StackOutputs], Manifest]


def altered(manifest: Manifest, _: StackOutputs) -> Manifest:
    return manifest.model_copy(update={"tables": {}})


def unsigned(manifest: Manifest, _: StackOutputs) -> Manifest:
    return manifest.model_copy(update={"signature": None})


def by_own_key(manifest: Manifest, outputs: StackOutputs) -> Manifest:
    """By a key of one's own that claims to be the stage's."""
    assert outputs.backups.signing_key
    bare = manifest.model_copy(update={"signature": None})
    value = ec.generate_private_key(ec.SECP256R1()).sign(
        statement("manifest", bare.content()), ec.ECDSA(SHA256())
    )
    signature = Signature(key=outputs.backups.signing_key.key, value=base64.b64encode(value).decode())
    return bare.model_copy(update={"signature": signature})


def by_another_key(manifest: Manifest, _: StackOutputs) -> Manifest:
    """By another key of the same KMS."""
    kms = boto3.client("kms")
    arn = make_signing_key(kms)
    message = statement("manifest", manifest.model_copy(update={"signature": None}).content())
    answer = kms.sign(KeyId=arn, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
    value = base64.b64encode(answer["Signature"]).decode()
    return manifest.model_copy(update={"signature": Signature(key=arn, value=value)})


def for_another_purpose(manifest: Manifest, _: StackOutputs) -> Manifest:
    """By the stage's key, but for something else."""
    assert manifest.signature
    bare = manifest.model_copy(update={"signature": None})
    answer = boto3.client("kms").sign(
        KeyId=manifest.signature.key,
        Message=statement("run", bare.content()),
        MessageType="RAW",
        SigningAlgorithm="ECDSA_SHA_256",
    )
    value = base64.b64encode(answer["Signature"]).decode()
    return bare.model_copy(update={"signature": Signature(key=manifest.signature.key, value=value)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (altered, "its signature is wrong"),
        (unsigned, "it is not signed"),
        (by_own_key, "its signature is wrong"),
        (by_another_key, "and not by the stage's signing key"),
        (for_another_purpose, "its signature is wrong"),
    ],
)
@pytest.mark.usefixtures("outputs_file")
def test_a_manifest_that_the_stage_did_not_sign_is_refused_by_name(
    outputs: StackOutputs,
    stores: Stores,
    key: BackupKey,
    filled_url: str,
    target_url: str,
    change: Change,
    reason: str,
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    moved = true.model_copy(update={"id": "99991231T235959Z-ffffff", "sequence": 2})
    forged = change(moved, outputs)
    stores["primary"].create(forged.key(), BytesIO(forged.content()))
    place = f"s3://{outputs.backups.primary.bucket}/{forged.key()}"
    newest = read_catalogue(stores).find(None).key
    assert newest.id == forged.id
    with pytest.raises(CheckFailed, match=reason) as refused:
        read_manifest(stores["primary"], newest, Verifier(outputs.backups))
    assert str(refused.value).startswith(place)
    assert wrong(checks_of(outputs, stores, key)) >= {("primary", "manifest")}
    for command in (["list"], ["complete"], ["verify"], ["restore", forged.id, "--to", target_url]):
        outcome = CliRunner().invoke(app, command)
        assert isinstance(outcome.exception, CheckFailed), command
        assert place in str(outcome.exception), command
    assert not [entry for entry in stores["secondary"].list("manifests/") if forged.id in entry.key]


def test_a_signature_is_checked_without_this_program(
    outputs: StackOutputs, stores: Stores, filled_url: str, tmp_path: Path
) -> None:
    """By OpenSSL, from the manifest and the public key alone, as docs/backup.md has it."""
    document = json.loads(back_up(outputs, stores, filled_url).manifest.content())
    signature = document["signature"]
    document["signature"] = None
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (tmp_path / "message").write_text(
        f"kilo backup manifest\n{hashlib.sha256(canonical.encode()).hexdigest()}\n"
    )
    (tmp_path / "signature").write_bytes(base64.b64decode(signature["value"]))
    public = boto3.client("kms").get_public_key(KeyId=signature["key"])["PublicKey"]
    (tmp_path / "key").write_bytes(public)
    argv = ["openssl", "dgst", "-sha256", "-verify", "key", "-keyform", "DER", "-signature", "signature"]
    said = subprocess.run([*argv, "message"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "Verified OK"


def test_the_signing_key_of_a_lost_region_is_taken_from_its_replica(
    outputs: StackOutputs, stores: Stores, filled_url: str
) -> None:
    own = outputs.backups.signing_key
    assert own
    there = boto3.client("kms").replicate_key(KeyId=own.key.rpartition("/")[2], ReplicaRegion="eu-west-1")[
        "ReplicaKeyMetadata"
    ]["Arn"]
    true = back_up(outputs, stores, filled_url).manifest
    assert true.signature
    # The manifest names the key as it was; only its region answers no more.
    lost = own.model_copy(update={"key": own.key.replace(REGION, "us-east-1")})
    signed = true.model_copy(update={"signature": true.signature.model_copy(update={"key": lost.key})})
    alone = outputs.backups.model_copy(update={"signing_key": lost})
    with pytest.raises(CheckFailed, match="GetPublicKey failed"):
        signed.check_signature(Verifier(alone), "here")
    replica = own.model_copy(update={"key": there})
    signed.check_signature(Verifier(alone.model_copy(update={"signing_key_replica": replica})), "here")


def test_a_run_that_can_not_sign_writes_nothing(
    outputs: StackOutputs, stores: Stores, filled_url: str
) -> None:
    own = outputs.backups.signing_key
    assert own
    gone = own.model_copy(update={"key": own.key[:-4] + "dead"})
    backups = outputs.backups.model_copy(update={"signing_key": gone})
    with pytest.raises(CheckFailed, match="kms:Sign failed"):
        back_up(outputs.model_copy(update={"backups": backups}), stores, filled_url)
    for store in stores.values():
        assert [entry.key.partition("/")[0] for entry in store.list("")] == ["failures"]


def test_outputs_without_a_signing_key_are_refused(outputs: StackOutputs) -> None:
    with pytest.raises(BadInput, match=r"backups\.signing_key"):
        Verifier(outputs.backups.model_copy(update={"signing_key": None}))


def test_a_signing_key_of_another_kind_is_named(
    outputs: StackOutputs, stores: Stores, filled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = back_up(outputs, stores, filled_url).manifest
    public = rsa.generate_private_key(65537, 2048).public_key()
    answer = {"PublicKey": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}
    monkeypatch.setattr("kilo.backup.kms.KmsKey.call", lambda *_: answer)
    with pytest.raises(CheckFailed, match="it must be ECC_NIST_P256"):
        true.check_signature(Verifier(outputs.backups), "here")
