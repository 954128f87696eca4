"""The keyring: ages, outages, revocation, counters, single flight, forks, principals, second KMS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from kilo.contract import KeyReference
from kilo.fle import CacheLimits, FieldCipher, errors
from kilo.fle.formats import inspect, to_bytes, to_text
from kilo.fle.keyring import Keyring
from kilo.fle.keytable import DATA, KeyTable
from kilo.fle.kms import AwsKms, Context, KmsClients

from .conftest import Stage

LIMITS = CacheLimits(
    max_age_seconds=100, outage_seconds=50, retry_seconds=5, negative_seconds=10, reserve_messages=100
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingKms(AwsKms):
    """AWS KMS by its protocol, which counts its calls and can be out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.wraps = self.unwraps = 0
        self.down = False
        self.gate: threading.Event | None = None

    def wrap(self, key: str, secret: bytes | bytearray, context: Context) -> bytes:
        self.wraps += 1
        return super().wrap(key, secret, context)

    def unwrap(self, key: str, wrapped: bytes, context: Context) -> bytearray:
        self.unwraps += 1
        if self.gate:
            self.gate.wait(10)
        if self.down:
            raise errors.KmsUnavailable(detail="test")
        return super().unwrap(key, wrapped, context)


@pytest.fixture
def kms() -> CountingKms:
    return CountingKms()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keyring_of(
    stage: Stage, kms: Any, clock: Clock | None = None, limits: CacheLimits = LIMITS, **more: Any
) -> Keyring:
    references = {name: (each.encryption_key,) for name, each in stage.outputs.tenants.items()}
    return Keyring(
        KeyTable(stage.url), KmsClients(aws=kms), references, limits=limits, clock=clock or Clock(), **more
    )


def cipher_of(stage: Stage, keyring: Keyring) -> FieldCipher:
    scope = {name: each.encrypted_fields for name, each in stage.outputs.tenants.items()}
    return FieldCipher(keyring, scope, "customers")


def test_kms_calls_do_not_grow_with_operations(stage: Stage, kms: CountingKms) -> None:
    cipher = cipher_of(stage, keyring_of(stage, kms))
    for number in range(1000):
        cipher.decrypt("gold", "email", number, cipher.encrypt("gold", "email", number, "x"))
    assert (kms.wraps, kms.unwraps) == (1, 1)


def test_keys_are_fetched_again_at_their_age_and_a_revoked_one_stops(
    stage: Stage, kms: CountingKms, clock: Clock
) -> None:
    cipher = cipher_of(stage, keyring_of(stage, kms, clock))
    value = cipher.encrypt("gold", "email", 1, "x")
    stage.destroy_kms_key("gold")
    clock.now += 99
    assert cipher.decrypt("gold", "email", 1, value) == "x"
    clock.now += 1
    with pytest.raises(errors.KmsKeyUnusable):
        cipher.decrypt("gold", "email", 1, value)
    with pytest.raises(errors.KmsKeyUnusable):
        cipher.encrypt("gold", "email", 1, "x")


def test_an_outage_is_served_for_its_time_and_no_longer(stage: Stage, kms: CountingKms, clock: Clock) -> None:
    cipher = cipher_of(stage, keyring_of(stage, kms, clock))
    value = cipher.encrypt("gold", "email", 1, "x")
    kms.down = True
    for _ in range(14):
        clock.now += 10
        assert cipher.decrypt("gold", "email", 1, value) == "x"
        cipher.encrypt("gold", "email", 1, "y")
    clock.now += 10
    with pytest.raises(errors.KmsUnavailable):
        cipher.decrypt("gold", "email", 1, value)
    kms.down = False
    clock.now += 2
    assert cipher.decrypt("gold", "email", 1, value) == "x"


def test_the_key_table_s_outage_is_served_as_well(stage: Stage, kms: CountingKms, clock: Clock) -> None:
    keyring = keyring_of(stage, kms, clock)
    cipher = cipher_of(stage, keyring)
    value = cipher.encrypt("gold", "email", 1, "x")
    keyring.table = KeyTable("postgresql://nobody:hidden@127.0.0.1:1/none")
    clock.now += 120
    assert cipher.decrypt("gold", "email", 1, value) == "x"
    clock.now += 31
    with pytest.raises(errors.KeyTableUnavailable) as caught:
        cipher.decrypt("gold", "email", 1, value)
    assert "hidden" not in str(caught.value)


def test_a_key_that_is_new_in_an_outage_is_out_of_reach_and_not_another_tenant_s(
    stage: Stage, kms: CountingKms, clock: Clock
) -> None:
    reader = cipher_of(stage, keyring_of(stage, kms, clock))
    reader.encrypt("gold", "email", 1, "x")
    other = keyring_of(stage, CountingKms())
    new = other.create("gold", DATA, "pending")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE state = 'active'")
    stage.sql("UPDATE fle_keys SET state = 'active' WHERE id = %s", new)
    value = cipher_of(stage, other).encrypt("gold", "email", 1, "y")
    kms.down = True
    with pytest.raises(errors.KmsUnavailable, match=f"key {new}"):
        reader.decrypt("gold", "email", 1, value)
    kms.down = False
    clock.now += 6
    assert reader.decrypt("gold", "email", 1, value) == "y"


def test_index_roots_are_wiped_with_their_ring(stage: Stage, kms: CountingKms) -> None:
    keyring = keyring_of(stage, kms)
    keyring.index_keys("gold", "customers", "email")
    (root,) = keyring.keysets["gold"].index.values()
    assert any(root)
    keyring.clear()
    assert root == bytes(32)


def test_refusals_are_remembered_for_a_while(stage: Stage, kms: CountingKms, clock: Clock) -> None:
    cipher_of(stage, keyring_of(stage, kms)).encrypt("gold", "email", 1, "x")
    stage.destroy_kms_key("gold")
    kms.unwraps = 0
    cipher = cipher_of(stage, keyring_of(stage, kms, clock))
    for _ in range(50):
        with pytest.raises(errors.KmsKeyUnusable):
            cipher.encrypt("gold", "email", 1, "x")
    assert kms.unwraps == 1
    clock.now += 11
    with pytest.raises(errors.KmsKeyUnusable):
        cipher.encrypt("gold", "email", 1, "x")
    assert kms.unwraps == 2


def test_unknown_keys_do_not_ask_the_key_table_each_time(
    stage: Stage, kms: CountingKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = keyring_of(stage, kms, limits=CacheLimits(max_tenants=3))
    cipher = cipher_of(stage, keyring)
    value = cipher.encrypt("gold", "email", 1, "x")
    asked: list[int] = []
    owner = keyring.table.owner
    monkeypatch.setattr(keyring.table, "owner", lambda key_id: asked.append(key_id) or owner(key_id))
    monkeypatch.setattr(keyring.table, "read", None)
    kms.unwraps = 0
    for number in range(200):
        unknown = to_text(b"\x02\x01\xff\xff\xff" + bytes([number // 40]) + to_bytes(value)[6:])
        with pytest.raises(errors.UnknownKey):
            cipher.decrypt("gold", "email", 1, unknown)
    assert len(asked) == 5
    assert kms.unwraps == 0
    assert len(keyring.refusals) <= 3


def test_threads_wait_for_one_fetch(stage: Stage, kms: CountingKms) -> None:
    cipher_of(stage, keyring_of(stage, kms)).encrypt("gold", "email", 1, "x")
    value = cipher_of(stage, keyring_of(stage, kms)).encrypt("gold", "email", 1, "x")
    kms.unwraps, kms.gate = 0, threading.Event()
    cipher = cipher_of(stage, keyring_of(stage, kms))
    with ThreadPoolExecutor(16) as pool:
        found = [pool.submit(cipher.decrypt, "gold", "email", 1, value) for _ in range(16)]
        kms.gate.set()
        assert {each.result() for each in found} == {"x"}
    assert kms.unwraps == 1


def test_two_processes_making_the_first_key_agree_on_one(stage: Stage, kms: CountingKms) -> None:
    with ThreadPoolExecutor(8) as pool:
        values = list(
            pool.map(
                lambda n: cipher_of(stage, keyring_of(stage, CountingKms())).encrypt("gold", "email", n, "x"),
                range(8),
            )
        )
    assert len({inspect(each).key_id for each in values}) == 1
    assert stage.sql("SELECT count(*) FROM fle_keys") == [(1,)]


def test_the_message_limit_holds_across_restarts(stage: Stage, kms: CountingKms) -> None:
    key_id = keyring_of(stage, kms).create("gold", DATA, "active")
    stage.sql("UPDATE fle_keys SET message_limit = 250 WHERE id = %s", key_id)
    made = 0
    for _ in range(5):
        cipher = cipher_of(stage, keyring_of(stage, kms))
        with suppress(errors.KeyExhausted):
            for _ in range(60):
                cipher.encrypt("gold", "email", 1, "x")
                made += 1
    # Each restart forfeits what it had reserved, so fewer than the limit; never more.
    assert made <= 250
    assert stage.sql("SELECT messages_reserved FROM fle_keys") == [(250,)]
    with pytest.raises(errors.KeyExhausted):
        cipher_of(stage, keyring_of(stage, kms)).encrypt("gold", "email", 1, "x")
    with pytest.raises(errors.KeyExhausted):
        cipher_of(stage, keyring_of(stage, kms)).encrypt_column("gold", "email", [1, 2], ["x", "y"])


def test_columns_count_each_value(stage: Stage, kms: CountingKms) -> None:
    key_id = keyring_of(stage, kms).create("gold", DATA, "active")
    stage.sql("UPDATE fle_keys SET message_limit = 10 WHERE id = %s", key_id)
    cipher = cipher_of(stage, keyring_of(stage, kms))
    cipher.encrypt_column("gold", "email", list(range(10)), ["x"] * 10)
    with pytest.raises(errors.KeyExhausted):
        cipher.encrypt("gold", "email", 1, "x")


def test_the_byte_limit_fetches_again(stage: Stage, kms: CountingKms) -> None:
    """Each value counts as a message for every 4 KiB that it begins."""
    limits = CacheLimits(max_bytes=40 * 4096, reserve_messages=10)
    cipher = cipher_of(stage, keyring_of(stage, kms, limits=limits))
    for _ in range(25):
        cipher.encrypt("gold", "email", 1, "x" * 10_000)
    assert stage.sql("SELECT messages_reserved FROM fle_keys") == [(80,)]
    assert kms.unwraps == 2


def test_the_message_limit_of_the_cache_fetches_again(stage: Stage, kms: CountingKms) -> None:
    limits = CacheLimits(max_messages=10, reserve_messages=5)
    cipher = cipher_of(stage, keyring_of(stage, kms, limits=limits))
    for _ in range(31):
        cipher.encrypt("gold", "email", 1, "x")
    assert kms.unwraps > 2


def test_principals_share_no_key(stage: Stage) -> None:
    allowed, denied = CountingKms(), CountingKms()
    denied.down = True
    one = cipher_of(stage, keyring_of(stage, allowed, principal="ingest"))
    other = cipher_of(stage, keyring_of(stage, denied, principal="support"))
    value = one.encrypt("gold", "email", 1, "x")
    with pytest.raises(errors.KmsUnavailable):
        other.decrypt("gold", "email", 1, value)
    assert "support" in repr(other)


def test_least_recently_fetched_tenants_leave_the_cache(stage: Stage, kms: CountingKms) -> None:
    keyring = keyring_of(stage, kms, limits=CacheLimits(max_tenants=1))
    cipher = cipher_of(stage, keyring)
    value = cipher.encrypt("gold", "email", 1, "x")
    cipher.encrypt("second", "email", 1, "x")
    assert list(keyring.keysets) == ["second"]
    assert cipher.decrypt("gold", "email", 1, value) == "x"


def test_wrapping_again_changes_wraps_and_no_value(stage: Stage, kms: CountingKms) -> None:
    cipher = cipher_of(stage, keyring_of(stage, kms))
    value = cipher.encrypt("gold", "email", 1, "x")
    arn = stage.kms.create_key()["KeyMetadata"]["Arn"]
    new = Keyring(
        KeyTable(stage.url),
        KmsClients(aws=kms),
        {"gold": (KeyReference(provider="aws", key=arn, alias="n"),)},
    )
    with pytest.raises(errors.ForeignKmsKey):
        new.rewrap("gold")
    assert new.rewrap("gold", [stage.outputs.tenants["gold"].encryption_key]) == [1]
    assert stage.sql("SELECT kms_key FROM fle_wraps WHERE key_id = 1") == [(arn,)]
    stage.destroy_kms_key("gold")
    assert cipher_of(stage, new).decrypt("gold", "email", 1, value) == "x"
    events = [row[0] for row in stage.sql("SELECT event FROM fle_key_history ORDER BY seq")]
    assert events == ["state", "wrapped", "wrap destroyed", "wrapped"]


def test_a_forked_child_starts_with_no_key_and_repeats_no_nonce(stage: Stage) -> None:
    cipher = stage.cipher()
    cipher.encrypt("gold", "email", 0, "x")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        # The child says what it found, and leaves without pytest's cleaning up.
        try:
            report = [
                len(cipher.keyring.keysets),
                *(cipher.encrypt("gold", "email", 1, "x") for _ in range(200)),
            ]
            os.write(writer, json.dumps(report).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        keysets, *child = json.load(pipe)
    os.waitpid(pid, 0)
    own = [cipher.encrypt("gold", "email", 1, "x") for _ in range(200)]
    assert keysets == 0
    assert len({to_bytes(each)[6:30] for each in child + own}) == 400
    assert cipher.decrypt("gold", "email", 1, child[0]) == "x"


WRITER = """
import sys
from kilo.contract import load_outputs
from kilo.fle import CacheLimits, FieldCipher
limits = CacheLimits(reserve_messages=10)
cipher = FieldCipher.from_outputs(load_outputs(sys.argv[1]), sys.argv[2], table="t", limits=limits)
while True:
    print(cipher.encrypt("gold", "email", 1, "x"), flush=True)
"""


def test_a_killed_writer_has_counted_whatever_it_wrote(stage: Stage, tmp_path: Any) -> None:
    path = tmp_path / "outputs.json"
    path.write_text(stage.outputs.model_dump_json())
    wrote: list[str] = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, stage.url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        wrote += [process.stdout.readline().strip() for _ in range(37)]
        process.send_signal(signal.SIGKILL)
        wrote += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
    reserved = stage.sql("SELECT messages_reserved FROM fle_keys")[0][0]
    assert reserved >= len(wrote) >= 74
    assert len({to_bytes(each)[6:30] for each in wrote}) == len(wrote)


def test_a_shredded_tenant_s_minimum_never_falls(stage: Stage) -> None:
    import psycopg

    stage.sql("INSERT INTO fle_tenants (tenant, minimum_version) VALUES ('gold', 3)")
    with pytest.raises(psycopg.errors.RaiseException, match="never falls"):
        stage.sql("UPDATE fle_tenants SET minimum_version = 2")
    with pytest.raises(psycopg.errors.RaiseException):
        stage.sql("DELETE FROM fle_tenants")
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        stage.sql("DELETE FROM fle_key_history")
