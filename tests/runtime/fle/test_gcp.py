"""Google Cloud KMS by its gRPC protocol, with Google's own client; and the audit store in Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from kilo.contract import BucketOutputs, KeyReference
from kilo.errors import Unreachable
from kilo.fle import FieldCipher, errors
from kilo.fle.audit.store import GcsStore
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import DATA, KeyTable
from kilo.fle.kms import GcpKms, KmsClients
from sandbox.servers.fake_gcs import FakeGcsServer
from tests.patience import PATIENCE_SECONDS

from .conftest import Stage
from .gcp_kms import CloudKms

NAME = "projects/p/locations/europe-west3/keyRings/kilo/cryptoKeys/gold"
CONTEXT = {"tenant": "gold", "purpose": DATA, "key-id": "1"}
SECRET = b"k" * 32


@pytest.fixture
def cloud() -> Iterator[CloudKms]:
    server = CloudKms()
    yield server
    server.stop()


def test_a_wrap_opens_under_its_key_and_context_alone(cloud: CloudKms) -> None:
    kms = GcpKms(cloud.client())
    wrapped = kms.wrap(NAME, SECRET, CONTEXT)
    assert kms.unwrap(NAME, wrapped, CONTEXT) == SECRET
    with pytest.raises(errors.WrapNotAuthentic):
        kms.unwrap(NAME, wrapped, {**CONTEXT, "tenant": "second"})
    with pytest.raises(errors.KmsKeyUnusable):
        kms.unwrap(f"{NAME}2", wrapped, CONTEXT)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, errors.KmsDenied),
        (grpc.StatusCode.UNAUTHENTICATED, errors.KmsDenied),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.KmsKeyUnusable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.KmsThrottled),
        (grpc.StatusCode.INTERNAL, errors.KmsUnavailable),
    ],
)
def test_each_refusal_has_its_own_error(
    cloud: CloudKms, status: grpc.StatusCode, error: type[errors.FieldError]
) -> None:
    cloud.answer = status
    with pytest.raises(error) as caught:
        GcpKms(cloud.client()).wrap(NAME, SECRET, CONTEXT)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.timeout(PATIENCE_SECONDS)
def test_an_outage_is_given_up_within_seconds(cloud: CloudKms) -> None:
    """The library's own patience is a minute, in which every reader of the tenant would wait."""
    cloud.answer = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(errors.KmsUnavailable):
        GcpKms(cloud.client()).wrap(NAME, SECRET, CONTEXT)
    assert cloud.calls > 1


def test_what_was_corrupted_on_the_way_is_noticed(cloud: CloudKms) -> None:
    kms = GcpKms(cloud.client())
    wrapped = kms.wrap(NAME, SECRET, CONTEXT)
    cloud.corrupt = True
    with pytest.raises(errors.KmsUnavailable, match="corrupted"):
        kms.wrap(NAME, SECRET, CONTEXT)
    with pytest.raises(errors.KmsUnavailable, match="corrupted"):
        kms.unwrap(NAME, wrapped, CONTEXT)


def test_no_credentials_are_a_denial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(errors.KmsDenied, match="DefaultCredentialsError"):
        GcpKms().wrap(NAME, SECRET, CONTEXT)


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("ENABLED", "enabled"),
        ("DISABLED", "disabled"),
        ("DESTROY_SCHEDULED", "pending-deletion"),
        ("DESTROYED", "gone"),
    ],
)
def test_a_key_s_state_is_its_primary_version_s(cloud: CloudKms, state: str, seen: str) -> None:
    kms = GcpKms(cloud.client())
    assert kms.state(NAME) == "gone"
    kms.wrap(NAME, SECRET, CONTEXT)
    cloud.state = state
    assert kms.state(NAME) == seen


def test_a_second_cloud_opens_what_the_first_can_t(stage: Stage, cloud: CloudKms) -> None:
    first = stage.outputs.tenants["gold"].encryption_key
    second = KeyReference(provider="gcp", key=NAME, alias="gold")
    keyring = Keyring(KeyTable(stage.url), KmsClients(gcp=GcpKms(cloud.client())), {"gold": (first, second)})
    cipher = FieldCipher(keyring, {"gold": ["email"]}, "customers")
    value = cipher.encrypt("gold", "email", 1, "x")
    assert stage.sql("SELECT provider FROM fle_wraps ORDER BY 1") == [("aws",), ("gcp",)]
    stage.destroy_kms_key("gold")
    keyring.clear()
    assert cipher.decrypt("gold", "email", 1, value) == "x"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketOutputs]:
    server = FakeGcsServer(tmp_path)
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "kilo")
    yield BucketOutputs(
        provider="gcp", bucket="audit", location="europe-west3", lock_mode="unlocked", retention_days=1
    )
    server.stop()


def test_the_audit_store_in_cloud_storage(bucket: BucketOutputs) -> None:
    """What the local server leaves out, refusing a write over what is there, is found by reading it back."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(credentials=AnonymousCredentials())
    store = GcsStore(bucket, client)
    with pytest.raises(Unreachable, match="audit"):
        store.names()
    client.create_bucket("audit")
    assert store.names() == []
    store.create("checkpoint-0000000001.note", "one")
    store.create("entries-0000000000-0000000001.jsonl", "two")
    assert store.names() == ["checkpoint-0000000001.note", "entries-0000000000-0000000001.jsonl"]
    assert store.read("checkpoint-0000000001.note") == "one"
