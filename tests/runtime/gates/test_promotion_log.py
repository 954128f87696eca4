"""Promotions in the audit log of a real database: who may begin, go on and lead, and what verifies later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kilo.database.lease import Lease, LeaseLost
from kilo.database.session import connect
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append, read
from kilo.fle.audit.signatures import PROMOTE, check_signatures, people_of
from kilo.fle.rotation import approval
from kilo.promotion.approvals import approve, check_approved, digest_of
from kilo.promotion.record import ACTION, Change, Journal, Phase

from .conftest import PEOPLE, Stage

CHANGE = Change("images.runtime", "kilo:1", f"kilo@sha256:{'a' * 64}")
DETAILS: dict[str, Any] = {"from": "dev", "release": "b" * 64, "changes": [CHANGE.document()]}


@pytest.fixture
def connection(stage: Stage) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(stage.url, autocommit=True) as found:
        yield found


def sign(stage: Stage, *names: str, requester: str = "requester", **changes: Any) -> list[approval.Approval]:
    digest = digest_of({**DETAILS, **changes}, "test", requester)
    return [approval.sign(stage.outputs, PROMOTE, digest, name, PEOPLE[name]) for name in names]


def begin(stage: Stage, journal: Journal, **changes: Any) -> None:
    digest = digest_of(DETAILS, "test", "requester")
    signed = approve(stage.outputs, "requester", digest, sign(stage, "approver.one"))
    journal.note("requester", Phase.BEGUN, "one", {**DETAILS, "approvals": signed, **changes})


def problems(connection: psycopg.Connection[Any], stage: Stage) -> list[str]:
    return check_signatures(read(connection), "test", people_of(stage.outputs))[1]


def test_a_promotion_is_told_by_the_log_and_verifies(
    stage: Stage, connection: psycopg.Connection[Any]
) -> None:
    journal = Journal(connection, "test", "kilo 1 abc")
    assert journal.course() is None
    begin(stage, journal)
    journal.note("requester", Phase.DEPLOYED, "one", {"plan": "c" * 64})
    course = journal.course()
    assert course
    assert (course.phase, course.changes, course.requester) == (Phase.DEPLOYED, (CHANGE,), "requester")
    check_approved(stage.outputs, course)
    journal.note("requester", Phase.VERIFIED, "one", {"figures": [{"check": "lost", "value": 0.0}]})
    assert [step["details"]["program"] for step in journal.steps()] == ["kilo 1 abc"] * 3
    assert problems(connection, stage) == []


def test_an_approver_who_asks_is_none(stage: Stage) -> None:
    digest = digest_of(DETAILS, "test", "requester")
    with pytest.raises(CheckFailed, match="requester asks for the promotion, so somebody else must"):
        approve(stage.outputs, "requester", digest, sign(stage, "requester"))
    with pytest.raises(CheckFailed, match="needs somebody else's approval"):
        approve(stage.outputs, "requester", digest, [])
    with pytest.raises(BadInput, match="stranger may not request or approve"):
        approve(stage.outputs, "stranger", digest, sign(stage, "approver.one", requester="stranger"))


def test_two_names_with_one_key_are_one_person(stage: Stage) -> None:
    people = stage.outputs.field_encryption.principals
    twin = people[0].model_copy(update={"name": "twin"})
    encryption = stage.outputs.field_encryption.model_copy(update={"principals": (*people, twin)})
    outputs = stage.outputs.model_copy(update={"field_encryption": encryption})
    digest = digest_of(DETAILS, "test", people[0].name)
    signed = approval.sign(outputs, PROMOTE, digest, "twin", PEOPLE[people[0].name])
    with pytest.raises(CheckFailed, match="twin asks for the promotion"):
        approve(outputs, people[0].name, digest, [signed])


@pytest.mark.parametrize(
    "other", [{"release": "c" * 64}, {"changes": []}, {"from": "dev-2"}], ids=["release", "changes", "from"]
)
def test_an_approval_of_something_else_is_none(stage: Stage, other: dict[str, Any]) -> None:
    digest = digest_of(DETAILS, "test", "requester")
    with pytest.raises(CheckFailed, match="for something else"):
        approve(stage.outputs, "requester", digest, sign(stage, "approver.one", **other))


@pytest.mark.parametrize(
    "changes",
    [
        {"approvals": {}},
        {"approvals": {"requester": "00" * 64}},
        {"approvals": {"approver.one": "00" * 64}},
        {"approvals": {"approver.one": "no hexadecimal"}},
        {"changes": [Change("outbox.workers", 1, 16).document()]},
        {"release": "c" * 64},
    ],
    ids=str,
)
def test_what_somebody_wrote_into_the_log_is_not_gone_on_with(
    stage: Stage, connection: psycopg.Connection[Any], changes: dict[str, Any]
) -> None:
    journal = Journal(connection, "test", "")
    begin(stage, journal, **changes)
    course = journal.course()
    assert course
    with pytest.raises(CheckFailed):
        check_approved(stage.outputs, course)
    assert problems(connection, stage)


def test_a_second_promotion_does_not_begin_on_a_half_finished_one(
    stage: Stage, connection: psycopg.Connection[Any]
) -> None:
    journal = Journal(connection, "test", "")
    begin(stage, journal)
    with pytest.raises(CheckFailed, match="promotion two: 'begun' does not follow"):
        journal.note("requester", Phase.BEGUN, "two", DETAILS)
    course = journal.course()
    assert course
    assert course.id == "one"


def test_whoever_has_lost_the_lease_writes_nothing(stage: Stage, connection: psycopg.Connection[Any]) -> None:
    async def take(holder: str, seconds: float) -> Lease:
        lease = Lease("promotion/test", holder, seconds)
        async with await connect(stage.url, holder) as session:
            assert await lease.acquire(session)
        return lease

    first = asyncio.run(take("first", 0.1))
    journal = Journal(connection, "test", "", first)
    journal.held()
    connection.execute("SELECT pg_sleep(0.2)")
    asyncio.run(take("second", 10))
    with pytest.raises(LeaseLost):
        journal.held()
    with pytest.raises(LeaseLost):
        begin(stage, journal)
    assert journal.steps() == []


def test_steps_of_another_stage_are_not_this_ones(stage: Stage, connection: psycopg.Connection[Any]) -> None:
    begin(stage, Journal(connection, "test", ""))
    append(connection, "requester", ACTION, "promotion/other", {"act": "begun", "promotion": "x", **DETAILS})
    assert len(Journal(connection, "test", "").steps()) == 1
    assert len(Journal(connection, "other", "").steps()) == 1
