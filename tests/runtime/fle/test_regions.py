"""A tenant's KMS key with a replica in another region, while its own is away, says no, or lies."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from pydantic import ValidationError

from kilo.contract import KeyReference
from kilo.fle import errors
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import DATA, KeyTable
from kilo.fle.kms import Context, KmsClients, context_of
from kilo.fle.upkeep import EncryptionUpkeep

from .conftest import REGION, Stage
from .test_keyring import Clock, CountingKms, cipher_of
from .test_metrics import value

THERE = "eu-west-1"


class RegionalKms(CountingKms):
    """Regions that don't answer, or say no."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, errors.FieldError] = {}
        self.asked: list[str] = []

    def _meet(self, key: str) -> None:
        region = key.split(":")[3]
        self.asked.append(region)
        if problem := self.problems.get(region):
            raise problem

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        self._meet(key)
        return super().wrap(key, secret, context)

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        self._meet(key)
        return super().unwrap(key, wrapped, context)


@pytest.fixture
def reference(stage: Stage) -> KeyReference:
    """gold's key and its replica."""
    own = stage.kms.create_key(MultiRegion=True)["KeyMetadata"]
    there = stage.kms.replicate_key(KeyId=own["KeyId"], ReplicaRegion=THERE)["ReplicaKeyMetadata"]
    return KeyReference(provider="aws", key=own["Arn"], alias="alias/gold", replicas=(there["Arn"],))


def keyring_for(stage: Stage, reference: KeyReference, kms: Any, *further: KeyReference) -> Keyring:
    return Keyring(KeyTable(stage.url), KmsClients(aws=kms), {"gold": (reference, *further)}, clock=Clock())


AWAY = errors.KmsUnavailable(detail="ConnectTimeoutError")


def test_while_its_region_is_away_a_key_is_read_made_and_wrapped_by_its_replica(
    stage: Stage, reference: KeyReference
) -> None:
    kms = RegionalKms()
    before = cipher_of(stage, keyring_for(stage, reference, kms)).encrypt(
        "gold", "email", 1, "ana@example.com"
    )
    assert set(kms.asked) == {REGION}
    kms.problems = {REGION: AWAY}
    lost = cipher_of(stage, keyring_for(stage, reference, kms))
    assert lost.decrypt("gold", "email", 1, before) == "ana@example.com"
    pending = lost.keyring.create("gold", DATA, "pending")
    assert pending in lost.keyring.rewrap("gold")
    assert stage.sql("SELECT DISTINCT kms_key FROM fle_wraps") == [(reference.key,)]
    # What the replica wrapped opens in the key's own region, once that is back.
    kms.problems, kms.asked = {}, []
    assert (
        cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, before)
        == "ana@example.com"
    )
    assert kms.asked == [REGION]


def test_a_region_that_is_away_is_asked_last_for_a_while(stage: Stage, reference: KeyReference) -> None:
    kms, clock = RegionalKms(), Clock()
    keyring = keyring_for(stage, reference, kms)
    keyring.wraps.regions.clock = clock
    kms.problems = {REGION: AWAY}
    value = cipher_of(stage, keyring).encrypt("gold", "email", 1, "x")
    assert kms.asked[:2] == [REGION, THERE]
    kms.asked = []
    keyring.clear()
    assert cipher_of(stage, keyring).decrypt("gold", "email", 1, value) == "x"
    assert kms.asked == [THERE]
    clock.now += 31
    kms.problems, kms.asked = {}, []
    keyring.clear()
    cipher_of(stage, keyring).decrypt("gold", "email", 1, value)
    assert kms.asked == [REGION]


@pytest.mark.parametrize("no", [errors.KmsDenied, errors.KmsKeyUnusable])
def test_who_disables_a_key_in_its_own_region_stops_it(
    stage: Stage, reference: KeyReference, no: type[errors.FieldError]
) -> None:
    kms = RegionalKms()
    value = cipher_of(stage, keyring_for(stage, reference, kms)).encrypt("gold", "email", 1, "x")
    kms.problems, kms.asked = {REGION: no(detail="test")}, []
    with pytest.raises(no):
        cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, value)
    assert kms.asked == [REGION]


def test_a_replica_that_says_no_counts_for_nothing_while_the_key_s_own_region_answers(
    stage: Stage, reference: KeyReference
) -> None:
    kms = RegionalKms()
    keyring = keyring_for(stage, reference, kms)
    value = cipher_of(stage, keyring).encrypt("gold", "email", 1, "x")
    kms.problems = {REGION: AWAY, THERE: errors.KmsKeyUnusable(detail="DisabledException")}
    keyring.clear()
    # As an outage, and not as a key that is gone: what is in memory serves on.
    with pytest.raises(errors.KmsUnavailable):
        cipher_of(stage, keyring).decrypt("gold", "email", 1, value)
    del kms.problems[REGION]
    keyring.clear()
    kms.asked = []
    assert cipher_of(stage, keyring).decrypt("gold", "email", 1, value) == "x"
    assert kms.asked == [THERE, REGION]


def test_a_replica_that_lies_gives_no_key(
    stage: Stage, reference: KeyReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    kms = RegionalKms()
    value = cipher_of(stage, keyring_for(stage, reference, kms)).encrypt("gold", "email", 1, "x")
    kms.problems = {REGION: AWAY}
    unwrap = kms.unwrap

    def lie(key: str, wrapped: bytes, context: Context) -> bytearray:
        unwrap(key, wrapped, context)
        return bytearray(b"A" * 32)

    monkeypatch.setattr(kms, "unwrap", lie)
    with pytest.raises(errors.WrapNotAuthentic, match="another secret"):
        cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, value)


def test_a_wrap_under_a_replica_of_somebody_else_s_key_is_not_opened(
    stage: Stage, reference: KeyReference
) -> None:
    kms = RegionalKms()
    cipher = cipher_of(stage, keyring_for(stage, reference, kms))
    value = cipher.encrypt("gold", "email", 1, "x")
    foreign = stage.kms.create_key(MultiRegion=True)["KeyMetadata"]["KeyId"]
    evil = stage.kms.replicate_key(KeyId=foreign, ReplicaRegion=THERE)["ReplicaKeyMetadata"]["Arn"]
    there = boto3.client("kms", region_name=THERE)
    blob = there.encrypt(
        KeyId=evil, Plaintext=b"A" * 32, EncryptionContext=context_of("gold", DATA, 1, 1, 2)
    )["CiphertextBlob"]
    # Its own wrap under the name of the replica is none of the tenant's either: a row names the key.
    for kms_key, forged in ((evil, blob), (reference.replicas[0], blob)):
        stage.past_triggers("UPDATE fle_wraps SET kms_key = %s, wrapped = %s", kms_key, forged)
        with pytest.raises(errors.ForeignKmsKey):
            cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, value)


def test_the_key_from_before_opens_what_it_wrapped_until_everything_is_wrapped_again(
    stage: Stage, reference: KeyReference
) -> None:
    kms, former = RegionalKms(), stage.outputs.tenants["gold"].encryption_key
    old = keyring_for(stage, former, kms)
    value = cipher_of(stage, old).encrypt("gold", "email", 1, "x")
    both = keyring_for(stage, reference, kms, former)
    assert cipher_of(stage, both).decrypt("gold", "email", 1, value) == "x"
    with pytest.raises(errors.ForeignKmsKey):
        cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, value)
    both.rewrap("gold")
    # A process with the outputs from before, one with those of the migration, one with those after it.
    for each in (keyring_for(stage, former, kms), both, keyring_for(stage, reference, kms)):
        each.clear()
        assert cipher_of(stage, each).decrypt("gold", "email", 1, value) == "x"
    stage.destroy_kms_key("gold")
    kms.problems = {REGION: AWAY}
    assert cipher_of(stage, keyring_for(stage, reference, kms)).decrypt("gold", "email", 1, value) == "x"


def test_the_state_of_a_replica_shows(stage: Stage, reference: KeyReference) -> None:
    gold = stage.outputs.tenants["gold"].model_copy(update={"encryption_key": reference})
    upkeep = EncryptionUpkeep(stage.outputs.model_copy(update={"tenants": {"gold": gold}}), stage.url)
    upkeep.look_at_keys()
    assert value("fle_kms_key_state", tenant="gold", state="enabled") == 1
    boto3.client("kms", region_name=THERE).disable_key(KeyId=reference.replicas[0].rpartition("/")[2])
    upkeep.look_at_keys()
    assert value("fle_kms_key_state", tenant="gold", state="disabled") == 1


OWN = "arn:aws:kms:eu-central-1:111122223333:key/mrk-0a"


@pytest.mark.parametrize(
    "replica",
    [
        "arn:aws:kms:eu-west-1:444455556666:key/mrk-0a",
        "arn:aws:kms:eu-west-1:111122223333:key/mrk-0b",
        "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-0a",
        "arn:aws:kms:eu-central-1:111122223333:key/mrk-0a",
        "arn:aws:kms:eu-west-1:111122223333:alias/mrk-0a",
        "mrk-0a",
        "",
    ],
)
def test_what_is_not_the_same_key_in_another_region_is_no_replica(replica: str) -> None:
    good = "arn:aws:kms:eu-west-1:111122223333:key/mrk-0a"
    KeyReference(provider="aws", key=OWN, alias="a", replicas=(good,))
    for replicas in ((replica,), (good, replica), (good, good)):
        with pytest.raises(ValidationError, match="is no replica in another region of"):
            KeyReference(provider="aws", key=OWN, alias="a", replicas=replicas)
    with pytest.raises(ValidationError, match="is no replica"):
        KeyReference(
            provider="aws", key=OWN.replace("mrk-", ""), alias="a", replicas=(good.replace("mrk-", ""),)
        )
