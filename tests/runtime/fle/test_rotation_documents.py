"""Rotation of what ingest stores: values at any depth of events, on the bus, among the dead letters."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from kilo.contract import EncryptedTable
from kilo.errors import CheckFailed
from kilo.fle import AsyncFieldCipher, errors
from kilo.fle.formats import DocumentRow
from kilo.fle.rotation.coverage import coverage
from kilo.fle.rotation.steps import Rotations
from kilo.outbox import strict_json
from kilo.sensitive import TABLE, hide, places, reveal

from .conftest import PEOPLE, Stage
from .test_rotation import approve, approved, counted, quiet
from .test_scope import configured

EVENTS = EncryptedTable(
    table=TABLE, context=TABLE, row_column="fingerprint", documents={"payload": ("email", "phone")}
)
PAYLOADS: list[dict[str, Any]] = [
    {"email": "ana@example.com", "total": 12345678901234567890, "rate": 1.10},
    {"customer": {"email": "bo@example.com", "phone": None}, "a/b": {"phone": "+46701234567"}},
    {"contacts": [{"email": "cy@example.com"}, {"email": "dee@example.com", "deep": [[{"phone": "+4670"}]]}]},
    {"email": {"not": "text"}, "note": "nothing to hide"},
    {"email": 7, "phone": ["+46", "+47"]},
]
VALUES = 6


@pytest.fixture
def stage(stage: Stage) -> Stage:
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (EVENTS,)})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    return stage


@pytest.fixture
def rotations(stage: Stage) -> Rotations:
    return Rotations(stage.outputs, stage.url, stage.cipher())


def insert(stage: Stage, payloads: dict[str, Any], tenant: str = "gold") -> None:
    with psycopg.connect(stage.url) as connection:
        connection.cursor().executemany(
            "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
            " VALUES (%s, %s, 'order', '1', 'order.paid', %s)",
            [(name, tenant, strict_json.write(payload)) for name, payload in payloads.items()],
        )


async def fill(stage: Stage) -> dict[str, Any]:
    """Events as ingest stores them; what they are in plain."""
    cipher = AsyncFieldCipher(stage.cipher(TABLE))
    plain = {f"gold/{n}": strict_json.parse(json.dumps(each)) for n, each in enumerate(PAYLOADS)}
    insert(stage, {name: await hide(cipher, "gold", name, each) for name, each in plain.items()})
    return plain


async def read(stage: Stage) -> dict[str, Any]:
    cipher = AsyncFieldCipher(stage.cipher(TABLE))
    rows = stage.sql("SELECT fingerprint, payload::text FROM events WHERE tenant = 'gold' ORDER BY 1")
    return {name: await reveal(cipher, "gold", name, strict_json.parse(text)) for name, text in rows}


def under(stage: Stage) -> dict[str, int]:
    with psycopg.connect(stage.url) as connection:
        found = coverage(connection, [EVENTS], ["gold"])
    total: dict[str, int] = {}
    for each in found:
        total[each.under] = total.get(each.under, 0) + each.values
    return total


async def test_values_at_any_depth_move_to_the_new_key_and_stay_readable(
    stage: Stage, rotations: Rotations
) -> None:
    plain = await fill(stage)
    assert under(stage) == {"1": VALUES}
    plan = approved(stage, rotations).digest()
    assert rotations.run(plan, "tester", quiet, batch_rows=2) == (True, [])
    assert under(stage) == {"2": VALUES}
    assert rotations.verify(plan, "tester") == counted(VALUES)
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert await read(stage) == plain
    kept = stage.sql("SELECT payload->>'total', payload->>'rate' FROM events WHERE fingerprint = 'gold/0'")
    assert kept == [("12345678901234567890", "1.1")]


async def test_what_is_done_is_not_read_again(stage: Stage, rotations: Rotations) -> None:
    await fill(stage)
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    seen: list[int] = []
    rotations.run(plan, "tester", lambda progress: seen.append(progress.read))
    assert set(seen) == {0}


async def test_moving_into_scope_and_out_again(stage: Stage, rotations: Rotations) -> None:
    plain = {f"gold/{n}": strict_json.parse(json.dumps(each)) for n, each in enumerate(PAYLOADS)}
    insert(stage, plain)
    with pytest.raises(errors.PlaintextFound):
        await read(stage)
    adopt = approved(stage, rotations, "adopt").digest()
    with pytest.raises(errors.PlaintextFound):
        await read(stage)
    assert rotations.run(adopt, "tester", quiet) == (True, [])
    assert await read(stage) == plain
    rotations.verify(adopt, "tester")
    rotations.finalize(adopt, "requester", PEOPLE["requester"])
    assert under(stage) == {"1": VALUES}
    assert await read(stage) == plain
    release = approved(stage, rotations, "release").digest()
    left = configured(stage)
    rotations.outputs = left.outputs
    assert rotations.run(release, "tester", quiet) == (True, [])
    assert under(stage) == {"plain": VALUES}
    assert await read(left) == plain


async def test_a_field_that_is_new_to_the_stage_is_adopted_by_its_name(
    stage: Stage, rotations: Rotations
) -> None:
    insert(stage, {"gold/1": {"owner": {"tax_id": "1234"}}})
    plan = rotations.plan("gold", "adopt", "requester", PEOPLE["requester"], 0, fields=["tax_id"])
    approve(stage, rotations, plan.digest())
    tenant = stage.outputs.tenants["gold"].model_copy(update={"encrypted_fields": ("email", "tax_id")})
    tenants = {**stage.outputs.tenants, "gold": tenant}
    rotations.outputs = stage.outputs.model_copy(update={"tenants": tenants})
    assert rotations.run(plan.digest(), "tester", quiet) == (True, [])
    ((stored,),) = stage.sql("SELECT payload#>>'{owner,tax_id}' FROM events")
    assert stage.cipher(TABLE).decrypt("gold", "tax_id", DocumentRow("gold/1", "/owner"), stored) == "1234"
    assert rotations.verify(plan.digest(), "tester") == counted(1)


async def test_going_back_converts_documents_back(stage: Stage, rotations: Rotations) -> None:
    plain = await fill(stage)
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    rotations.begin_rollback(plan, "requester", PEOPLE["requester"])
    rotations.run(plan, "tester", quiet)
    rotations.end_rollback(plan, "tester")
    assert under(stage) == {"1": VALUES}
    assert await read(stage) == plain


async def test_a_value_moved_to_another_place_of_its_event_is_left_and_named(
    stage: Stage, rotations: Rotations
) -> None:
    await fill(stage)
    stage.sql(
        "UPDATE events SET payload = jsonb_set(payload, '{contacts,0}', payload->'contacts'->1)"
        " WHERE fingerprint = 'gold/2'"
    )
    plan = approved(stage, rotations).digest()
    _, failed = rotations.run(plan, "tester", quiet)
    assert any(each.startswith("events: row gold/2/contacts/0: gold/email") for each in failed)
    with pytest.raises(CheckFailed, match="not complete"):
        rotations.verify(plan, "tester")


async def test_finalize_waits_until_the_bus_holds_nothing_older(stage: Stage) -> None:
    settings = stage.outputs.field_encryption.model_copy(update={"in_flight_days": 7})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    rotations = Rotations(stage.outputs, stage.url, stage.cipher())
    await fill(stage)
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    with pytest.raises(CheckFailed, match="on the bus until 7 days after the switch"):
        rotations.finalize(plan, "requester", PEOPLE["requester"])
    stage.sql("UPDATE fle_rotations SET switched_at = switched_at - interval '8 days'")
    rotations.finalize(plan, "requester", PEOPLE["requester"])


async def test_finalize_waits_for_dead_letters_under_the_old_key(stage: Stage, rotations: Rotations) -> None:
    plain = await fill(stage)
    letter = stage.sql("SELECT payload::text FROM events WHERE fingerprint = 'gold/1'")[0][0].encode()
    plan = approved(stage, rotations).digest()
    rotations.run(plan, "tester", quiet)
    rotations.verify(plan, "tester")
    stage.sql(
        "INSERT INTO dead_letters (consumer, fingerprint, tenant, aggregate, aggregate_id, kind, payload,"
        " headers, created_at, position)"
        " VALUES ('c', 'gold/1', 'gold', 'order', '1', 'order.paid', %s, '{}', now(), 1)",
        letter,
    )
    with pytest.raises(CheckFailed, match="1 dead letters hold values under the old key"):
        rotations.finalize(plan, "requester", PEOPLE["requester"])
    stage.sql("UPDATE dead_letters SET state = 'discarded'")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert await read(stage) == plain


def test_no_two_places_of_a_payload_have_one_pointer() -> None:
    payload = {"a/b": {"email": "1"}, "a": {"b": {"email": "2"}}, "a~1b": {"email": "3"}, "": {"email": "4"}}
    pointers = [pointer for _, _, pointer in places(frozenset({"email"}), payload)]
    assert pointers == ["/a~1b", "/a/b", "/a~01b", "/"]
