"""What Prometheus gets to see of field encryption, and what the database refuses to take back."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from prometheus_client import REGISTRY

from kilo.fle import errors
from kilo.fle.rotation.steps import Rotations
from kilo.fle.upkeep import EncryptionUpkeep

from .conftest import PEOPLE, Stage
from .test_rotation import approved, fill, quiet


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def operations() -> dict[str, float]:
    return {
        "encrypt": value("fle_operations_total", tenant="gold", operation="encrypt"),
        "decrypt": value("fle_operations_total", tenant="gold", operation="decrypt"),
        "hit": value("fle_data_key_cache_total", tenant="gold", result="hit"),
        "miss": value("fle_data_key_cache_total", tenant="gold", result="miss"),
    }


def test_operations_and_key_fetches_are_counted_however_they_were_asked_for(stage: Stage) -> None:
    before = operations()
    cipher = stage.cipher()
    searched = cipher.for_table("customers", deterministic=["email"])
    one = cipher.encrypt("gold", "email", 1, "x")
    column = cipher.encrypt_column("gold", "email", [1, 2, 3], ["a", "b", "c"])
    same = searched.encrypt_deterministic("gold", "email", "x")
    cipher.decrypt("gold", "email", 1, one)
    searched.decrypt("gold", "email", 1, same)
    cipher.decrypt_column("gold", "email", [1, 2, 3], column)
    assert {name: number - before[name] for name, number in operations().items()} == {
        "encrypt": 5,
        "decrypt": 5,
        "hit": 10,
        "miss": 1,
    }


def test_each_decrypt_failure_is_counted_by_tenant_and_reason(stage: Stage) -> None:
    cipher = stage.cipher()
    column = cipher.encrypt_column("gold", "email", [1, 2], ["a", "b"])
    for tenant, reason, values in [
        ("gold", "not-authentic", [column[0], column[0]]),
        ("gold", "plaintext", [column[0], "ana@example.com"]),
        ("unknown", "unknown-tenant", ["AgEA" * 30]),
    ]:
        before = value("fle_decrypt_failures_total", tenant=tenant, reason=reason)
        with pytest.raises(errors.FieldError):
            cipher.decrypt_column(
                tenant if tenant == "gold" else "nobody", "email", [1, 2][: len(values)], values
            )
        assert value("fle_decrypt_failures_total", tenant=tenant, reason=reason) == before + 1


def test_a_child_does_not_export_what_its_parent_counted(stage: Stage) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if operations()["encrypt"] == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0


CRASH = """
import asyncio, os, resource
from starlette.applications import Starlette
from kilo.service import serve_until_stopped
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
async def main():
    stopping = asyncio.Event()
    stopping.set()
    await serve_until_stopped(Starlette(), 0, stopping)
asyncio.run(main())
print(resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_service_that_crashes_leaves_no_image_of_its_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    assert done.stdout == "(0, 0)\n", done.stderr


def test_coverage_and_rotation_become_gauges(stage: Stage) -> None:
    cipher = stage.cipher()
    fill(stage, cipher, rows=10)
    upkeep = EncryptionUpkeep(stage.outputs, stage.url)
    upkeep.count()
    coverage = {"tenant": "gold", "field": "email"}
    assert value("fle_coverage_ratio", **coverage) == 1
    stage.sql("UPDATE customers SET email = 'ana@example.com' WHERE id <= 4")
    upkeep.count()
    assert value("fle_coverage_ratio", **coverage) == pytest.approx(0.6)
    assert value("fle_coverage_ratio", tenant="gold", field="phone") == 1
    stage.sql("UPDATE customers SET email = NULL WHERE id <= 4")
    rotations = Rotations(stage.outputs, stage.url, cipher)
    plan = approved(stage, rotations).digest()
    rotations.start(plan, "tester")
    upkeep.count()
    assert value("fle_rotation_rows_remaining", tenant="gold") == 16
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    upkeep.count()
    assert value("fle_rotation_rows_remaining", tenant="gold") == 0
    ((finished,),) = stage.sql("SELECT extract(epoch FROM finished_at)::float FROM fle_rotations")
    assert value("fle_rotation_last_success_timestamp_seconds", tenant="gold") == pytest.approx(finished)


def test_a_table_that_the_role_may_not_read_is_named(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    fill(stage, stage.cipher(), rows=1)
    host = stage.url.partition("@")[2]
    stage.sql("ALTER ROLE kilo_consumer PASSWORD 'c'")
    EncryptionUpkeep(stage.outputs, f"postgresql://kilo_consumer:c@{host}").count()
    assert "table customers is not counted: permission denied" in caplog.text


def test_the_consumer_s_role_may_count_the_events(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    from .test_rotation_documents import EVENTS

    settings = stage.outputs.field_encryption.model_copy(update={"tables": (EVENTS,)})
    outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    host = stage.url.partition("@")[2]
    stage.sql("ALTER ROLE kilo_consumer PASSWORD 'c'")
    EncryptionUpkeep(outputs, f"postgresql://kilo_consumer:c@{host}").count()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE fle_keys SET messages_reserved = 0", "a counter never falls"),
        ("UPDATE fle_keys SET tenant = 'second'", "a counter never falls"),
        ("UPDATE fle_keys SET state = 'active' WHERE state = 'retired'", "never comes back"),
        ("DELETE FROM fle_wraps; DELETE FROM fle_keys", "its row stays"),
        (
            "INSERT INTO fle_keys SELECT 9, 'legacy', purpose, 2, 9, 'active', 9 FROM fle_keys LIMIT 1",
            "shredded",
        ),
    ],
)
def test_nothing_is_taken_back(stage: Stage, statement: str, refusal: str) -> None:
    cipher = stage.cipher()
    cipher.encrypt("gold", "email", 1, "x")
    retired = cipher.keyring.create("second", "field-data", "retiring")
    stage.sql("UPDATE fle_keys SET state = 'retired' WHERE id = %s", retired)
    stage.sql("INSERT INTO fle_tenants (tenant, shredded_at) VALUES ('legacy', now())")
    with (
        psycopg.connect(stage.url) as connection,
        pytest.raises(psycopg.errors.RaiseException, match=refusal),
    ):
        connection.execute(statement.encode())


def test_a_shredded_tenant_gets_no_key_again(stage: Stage) -> None:
    stage.sql("INSERT INTO fle_tenants (tenant, shredded_at) VALUES ('gold', now())")
    with pytest.raises(errors.KeyDestroyed, match="shredded"):
        stage.cipher().keyring.create("gold", "field-data", "retiring", bytearray(b"k" * 32))


def test_a_key_that_is_disabled_or_scheduled_for_deletion_shows(stage: Stage) -> None:
    upkeep = EncryptionUpkeep(stage.outputs, stage.url)

    def states() -> dict[str, float]:
        upkeep.look_at_keys()
        return {
            state: value("fle_kms_key_state", tenant="gold", state=state)
            for state in ("enabled", "disabled", "pending-deletion", "gone")
        }

    nothing = {"enabled": 0.0, "disabled": 0.0, "pending-deletion": 0.0, "gone": 0.0}
    # The server here disables and deletes by a key's id alone, where AWS takes its ARN as well.
    key = stage.outputs.tenants["gold"].encryption_key.key.rpartition("/")[2]
    assert states() == {**nothing, "enabled": 1}
    stage.kms.disable_key(KeyId=key)
    assert states() == {**nothing, "disabled": 1}
    stage.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert states() == {**nothing, "pending-deletion": 1}
    stage.destroy_kms_key("gold")
    assert states() == {**nothing, "gone": 1}
    assert value("fle_kms_key_state", tenant="second", state="enabled") == 1
