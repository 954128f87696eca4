"""Somebody who writes the key table, and may not encrypt under the tenants' KMS keys, gets nothing by it."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from kilo.contract import KeyReference
from kilo.fle import CacheLimits, errors, formats
from kilo.fle.datakey import XaesKey
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import DATA, INDEX, KeyRow, KeyTable
from kilo.fle.kms import KmsClients, context_of, context_without_version
from kilo.fle.wraps import secret_digest

from .conftest import Stage
from .test_keyring import LIMITS, Clock, CountingKms, cipher_of, keyring_of

SECRET = b"A" * 32
INSERT_KEY = """
INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit, digest)
VALUES (%s, 'gold', 'field-data', %s, %s, %s, 281474976710656, %s)
"""


def evil_key(stage: Stage) -> str:
    """A KMS key of the attacker's own account."""
    return stage.kms.create_key()["KeyMetadata"]["Arn"]


def wrapped(stage: Stage, kms_key: str, context: dict[str, str], secret: bytes = SECRET) -> bytes:
    return stage.kms.encrypt(KeyId=kms_key, Plaintext=secret, EncryptionContext=context)["CiphertextBlob"]


def add_wrap(stage: Stage, key_id: int, kms_key: str, blob: bytes) -> None:
    """An older-looking wrap, which would be tried first."""
    stage.past_triggers(
        "INSERT INTO fle_wraps (key_id, provider, kms_key, wrapped, created_at)"
        " VALUES (%s, 'aws', %s, %s, '1970-01-01')",
        key_id,
        kms_key,
        blob,
    )


def forged(key_id: int, text: bytes) -> str:
    key = XaesKey(KeyRow(key_id, "gold", DATA, 2, 1, "active", ()), bytearray(SECRET))
    place = formats.associated_data(key.header, "gold", "customers", "email")
    return key.writer(place, lambda _: None, lambda *_: None)(text, 1)


def test_a_key_under_somebody_else_s_kms_key_is_refused_before_kms_is_asked(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "ana@example.com")
    evil = evil_key(stage)
    stage.sql(INSERT_KEY, 999, 2, 99, "retiring", secret_digest(SECRET))
    add_wrap(stage, 999, evil, wrapped(stage, evil, context_of("gold", DATA, 999, 99, 2)))
    kms = CountingKms()
    with pytest.raises(errors.ForeignKmsKey, match="not the tenant's"):
        cipher_of(stage, keyring_of(stage, kms)).decrypt("gold", "email", 1, forged(999, b"eve@example.com"))
    assert kms.unwraps == 0


def test_a_further_wrap_of_the_active_key_is_passed_over(stage: Stage) -> None:
    value = stage.cipher().encrypt("gold", "email", 1, "ana@example.com")
    evil = evil_key(stage)
    add_wrap(stage, 1, evil, wrapped(stage, evil, context_of("gold", DATA, 1, 1, 2)))
    fresh = stage.cipher()
    assert fresh.decrypt("gold", "email", 1, value) == "ana@example.com"
    assert stage.cipher().decrypt("gold", "email", 2, fresh.encrypt("gold", "email", 2, "b")) == "b"


def test_a_wrap_that_opens_to_another_secret_is_refused(stage: Stage) -> None:
    """Even one that somebody with the right to encrypt made, under the tenant's own KMS key."""
    stage.cipher().encrypt("gold", "email", 1, "ana@example.com")
    own = stage.outputs.tenants["gold"].encryption_key.key
    blob = wrapped(stage, own, context_of("gold", DATA, 1, 1, 2))
    stage.past_triggers("UPDATE fle_wraps SET wrapped = %s", blob)
    with pytest.raises(errors.WrapNotAuthentic, match="another secret than the key was made with"):
        stage.cipher().encrypt("gold", "email", 1, "x")


def test_a_wrap_is_bound_to_version_format_and_purpose(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    (row,) = KeyTable(stage.url).read("gold").keys
    wraps = stage.cipher().keyring.wraps
    wraps.unwrap(row)
    for change in ({"id": 2}, {"version": 7}, {"format": 1}, {"purpose": INDEX}, {"digest": None}):
        with pytest.raises(errors.WrapNotAuthentic):
            wraps.unwrap(replace(row, **change))
    with pytest.raises(errors.ForeignKmsKey):
        wraps.unwrap(replace(row, tenant="second"))


def test_a_key_in_memory_is_compared_when_it_is_unwrapped_again(stage: Stage) -> None:
    """Whoever could change wrap and digest alike does not get a running writer to take another secret."""
    clock = Clock()
    cipher = cipher_of(stage, keyring_of(stage, CountingKms(), clock))
    cipher.encrypt("gold", "email", 1, "x")
    own = stage.outputs.tenants["gold"].encryption_key.key
    blob = wrapped(stage, own, context_of("gold", DATA, 1, 1, 2))
    stage.past_triggers("UPDATE fle_wraps SET wrapped = %s", blob)
    stage.past_triggers("UPDATE fle_keys SET digest = %s", secret_digest(SECRET))
    for _ in range(2):
        clock.now += LIMITS.max_age_seconds + 1
        with pytest.raises(errors.WrapNotAuthentic, match="another secret than it did before"):
            cipher.encrypt("gold", "email", 1, "x")


def test_the_key_table_refuses_what_no_key_maker_does(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    for statement, said in (
        ("UPDATE fle_wraps SET wrapped = '\\x00'", "a wrap never changes"),
        ("UPDATE fle_keys SET digest = sha256('x')", "stays the one that was made"),
        ("UPDATE fle_keys SET digest = NULL", "stays the one that was made"),
        ("UPDATE fle_keys SET messages_reserved = message_limit", "in blocks"),
        (
            "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit)"
            " VALUES (9, 'gold', 'field-data', 2, 9, 'retiring', 1)",
            "with the digest of its secret",
        ),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=said):
            stage.sql(statement)
    stage.sql("UPDATE fle_keys SET state = 'retiring'")
    stage.sql("UPDATE fle_keys SET state = 'retired'")
    with pytest.raises(psycopg.errors.RaiseException, match="gets no wrap again"):
        stage.sql("INSERT INTO fle_wraps VALUES (1, 'aws', 'another', '\\x00')")
    with pytest.raises(psycopg.errors.RaiseException, match="may still be used"):
        stage.sql("UPDATE fle_keys SET messages_reserved = messages_reserved + 1")


@pytest.fixture
def old_key(stage: Stage) -> bytes:
    """A key as versions without digests made it, active; its secret."""
    secret = b"o" * 32
    own = stage.outputs.tenants["gold"].encryption_key.key
    stage.past_triggers(INSERT_KEY, 7, 2, 1, "active", None)
    add_wrap(stage, 7, own, wrapped(stage, own, context_without_version("gold", DATA, 7), secret))
    return secret


def test_keys_from_before_there_were_digests_are_read_written_with_and_adopted(
    stage: Stage, old_key: bytes
) -> None:
    value = stage.cipher().encrypt("gold", "email", 1, "ana@example.com")
    assert stage.cipher().keyring.rewrap("gold") == []
    assert stage.cipher().keyring.adopt("gold") == [7]
    assert stage.sql("SELECT digest FROM fle_keys") == [(secret_digest(old_key),)]
    assert stage.cipher().decrypt("gold", "email", 1, value) == "ana@example.com"
    assert stage.cipher().keyring.adopt("gold") == []
    said = stage.sql(
        "SELECT entry::jsonb -> 'details' ->> 'digest' FROM fle_audit WHERE entry LIKE '%adopt-key%'"
    )
    assert said == [(secret_digest(old_key).hex(),)]


def test_adoption_takes_in_no_key_of_an_attacker(stage: Stage, old_key: bytes) -> None:
    """Neither by a wrap under another KMS key, nor by an old wrap after the digest is there."""
    own, evil = stage.outputs.tenants["gold"].encryption_key.key, evil_key(stage)
    stage.past_triggers(INSERT_KEY, 8, 2, 2, "retiring", None)
    add_wrap(stage, 8, evil, wrapped(stage, evil, context_without_version("gold", DATA, 8)))
    with pytest.raises(errors.ForeignKmsKey):
        stage.cipher().keyring.adopt("gold")
    assert stage.sql("SELECT id FROM fle_keys WHERE digest IS NULL") == [(8,)]
    stage.past_triggers("DELETE FROM fle_wraps WHERE key_id = 7")
    add_wrap(stage, 7, own, wrapped(stage, own, context_without_version("gold", DATA, 7), old_key))
    with pytest.raises(errors.WrapNotAuthentic):
        stage.cipher().encrypt("gold", "email", 1, "x")


def test_wrapping_again_keeps_the_old_wraps_when_a_new_one_does_not_open(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = stage.cipher().encrypt("gold", "email", 1, "x")
    keyring = stage.cipher().keyring
    kms = keyring.wraps.regions.kms.of("aws")
    wrap = kms.wrap
    monkeypatch.setattr(kms, "wrap", lambda key, secret, context: wrap(key, b"?" * 32, context))
    with pytest.raises(errors.WrapNotAuthentic):
        keyring.rewrap("gold")
    assert stage.cipher().decrypt("gold", "email", 1, value) == "x"


def test_one_secret_is_one_key(stage: Stage) -> None:
    keyring = stage.cipher().keyring
    first = keyring.create("legacy", DATA, "active", bytearray(b"k" * 32))
    for tenant in ("legacy", "gold"):
        with pytest.raises(errors.SecretInUse, match=f"key {first}"):
            keyring.create(tenant, DATA, "retiring", bytearray(b"k" * 32))


def test_each_key_that_is_made_is_in_the_audit_log(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    ((digest,),) = stage.sql("SELECT digest FROM fle_keys")
    ((entry,),) = stage.sql("SELECT entry::jsonb FROM fle_audit")
    assert (entry["action"], entry["subject"]) == ("make-key", "tenant/gold")
    assert entry["details"]["digest"] == digest.hex()


def two_kms_keys(stage: Stage, kms: CountingKms, clock: Clock) -> tuple[Keyring, str]:
    """The old data key lies under the tenant's former KMS key alone, and the active one under the new."""
    old = stage.outputs.tenants["gold"].encryption_key
    value = stage.cipher().encrypt("gold", "email", 1, "old")
    new = KeyReference(provider="aws", key=evil_key(stage), alias="new")
    made = Keyring(KeyTable(stage.url), KmsClients(), {"gold": (new,)}).create("gold", DATA, "pending")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE id = 1")
    stage.sql("UPDATE fle_keys SET state = 'active' WHERE id = %s", made)
    references = {"gold": (new, old)}
    return Keyring(KeyTable(stage.url), KmsClients(aws=kms), references, limits=LIMITS, clock=clock), value


def test_an_old_kms_key_that_is_destroyed_stops_no_encryption(stage: Stage) -> None:
    clock = Clock()
    keyring, value = two_kms_keys(stage, CountingKms(), clock)
    cipher = cipher_of(stage, keyring)
    assert cipher.decrypt("gold", "email", 1, value) == "old"
    cipher.encrypt("gold", "email", 2, "new")
    stage.destroy_kms_key("gold")
    for _ in range(3):
        clock.now += LIMITS.max_age_seconds + 1
        cipher.encrypt("gold", "email", 2, "new")
        with pytest.raises(errors.KmsKeyUnusable, match="key 1"):
            cipher.decrypt("gold", "email", 1, value)


def test_an_outage_of_one_kms_key_is_served_for_its_time_and_stops_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, kms = Clock(), CountingKms()
    keyring, value = two_kms_keys(stage, kms, clock)
    cipher = cipher_of(stage, keyring)
    cipher.decrypt("gold", "email", 1, value)
    cipher.encrypt("gold", "email", 2, "new")
    away, unwrap = stage.outputs.tenants["gold"].encryption_key.key, kms.unwrap

    def partly(key: str, blob: bytes, context: dict[str, str]) -> bytearray:
        if key == away:
            raise errors.KmsUnavailable(detail="test")
        return unwrap(key, blob, context)

    monkeypatch.setattr(kms, "unwrap", partly)
    for _ in range(14):
        clock.now += 10
        assert cipher.decrypt("gold", "email", 1, value) == "old"
        cipher.encrypt("gold", "email", 2, "new")
    for _ in range(30):
        clock.now += 10
        cipher.encrypt("gold", "email", 2, "new")
        with pytest.raises(errors.KmsUnavailable):
            cipher.decrypt("gold", "email", 1, value)


def test_a_bad_v1_key_stops_no_other_v1_key(stage: Stage) -> None:
    keyring = stage.cipher().keyring
    good = keyring.create("legacy", DATA, "active", bytearray(b"k" * 32))
    value = stage.cipher().encrypt("legacy", "email", 1, "x")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE id = %s", good)
    bad = keyring.create("legacy", DATA, "active", bytearray(b"b" * 32))
    other = stage.cipher().encrypt("legacy", "email", 1, "y")
    stage.past_triggers("UPDATE fle_wraps SET wrapped = '\\x00' WHERE key_id = %s", bad)
    reader = stage.cipher()
    assert reader.decrypt("legacy", "email", 1, value) == "x"
    with pytest.raises(errors.WrapNotAuthentic, match=f"key {bad}"):
        reader.decrypt("legacy", "email", 1, other)


def test_a_writer_that_was_away_reserves_nothing_of_a_retired_key(stage: Stage) -> None:
    limits = CacheLimits(reserve_messages=1)
    writer = stage.cipher(limits=limits)
    writer.encrypt("gold", "email", 1, "x")
    new = stage.cipher().keyring.create("gold", DATA, "pending")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE id = 1")
    stage.sql("UPDATE fle_keys SET state = 'active' WHERE id = %s", new)
    stage.sql("UPDATE fle_keys SET state = 'retired' WHERE id = 1")
    with pytest.raises(errors.KeyRetired, match="try again"):
        writer.encrypt("gold", "email", 1, "y")
    assert formats.inspect(writer.encrypt("gold", "email", 1, "y")).key_id == new


def test_a_writer_learns_of_a_new_active_key_when_it_reserves(stage: Stage) -> None:
    writer = stage.cipher(limits=CacheLimits(reserve_messages=1))
    writer.encrypt("gold", "email", 1, "x")
    new = stage.cipher().keyring.create("gold", DATA, "pending")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE id = 1")
    stage.sql("UPDATE fle_keys SET state = 'active' WHERE id = %s", new)
    values = [writer.encrypt("gold", "email", 1, "y") for _ in range(2)]
    assert [formats.inspect(each).key_id for each in values] == [1, new]
