"""The emergency path: two others, one release, a reason, and an end."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append
from kilo.fle.audit.signatures import PROMOTE_EMERGENCY
from kilo.fle.rotation import approval
from kilo.promotion.emergency import ACTION, content_of, declare, digest_of, in_force

from .conftest import PEOPLE, Stage

RELEASE = "a" * 64
REASON = "incident 42: the fix of the outage"


def content(requester: str = "requester", seconds: float = 600, reason: str = REASON) -> dict[str, Any]:
    return content_of("test", "prod", RELEASE, requester, reason, time.time() + seconds)


def sign(
    stage: Stage, what: dict[str, Any], *names: str, action: str = PROMOTE_EMERGENCY
) -> list[approval.Approval]:
    return [approval.sign(stage.outputs, action, digest_of(what), name, PEOPLE[name]) for name in names]


def attempt(stage: Stage, what: dict[str, Any], signed: list[approval.Approval]) -> None:
    with psycopg.connect(stage.url) as connection:
        declare(connection, stage.outputs, what, signed)


def found(stage: Stage, to: str = "prod", release: str = RELEASE) -> dict[str, Any] | None:
    with psycopg.connect(stage.url) as connection:
        return in_force(connection, stage.outputs, to, release)


def test_two_others_let_this_release_pass_and_no_other(stage: Stage) -> None:
    assert found(stage) is None
    what = content()
    attempt(stage, what, sign(stage, what, "approver.one", "approver.two"))
    known = found(stage)
    assert known
    assert (known["approvers"], known["reason"]) == (["approver.one", "approver.two"], REASON)
    assert found(stage, release="b" * 64) is None
    assert found(stage, to="stage") is None


def test_the_requester_approves_nothing(stage: Stage) -> None:
    what = content("approver.one")
    with pytest.raises(CheckFailed, match=r"approver\.one asks for the emergency, so others must approve it"):
        attempt(stage, what, sign(stage, what, "approver.one", "approver.two"))
    assert found(stage) is None


def test_one_is_not_two_and_the_same_twice_is_one(stage: Stage) -> None:
    what = content()
    for names in ((), ("approver.one",), ("approver.one", "approver.one")):
        with pytest.raises(CheckFailed, match="needs 2 approvals by others than requester"):
            attempt(stage, what, sign(stage, what, *names))


def test_a_signature_of_something_else_is_refused(stage: Stage) -> None:
    what, other = content(), content(reason="incident 43: something else")
    with pytest.raises(CheckFailed, match="for something else"):
        attempt(stage, what, [*sign(stage, what, "approver.one"), *sign(stage, other, "approver.two")])
    with pytest.raises(CheckFailed, match="for something else"):
        attempt(stage, what, sign(stage, what, "approver.one", "approver.two", action="approve"))
    with pytest.raises(BadInput, match="stranger may not request or approve"):
        sign(stage, what, "stranger")


def test_a_reason_and_an_end_are_needed() -> None:
    with pytest.raises(BadInput, match="--reason"):
        content(reason="urgent")
    for seconds in (-1, 90_000):
        with pytest.raises(BadInput, match="--hours"):
            content(seconds=seconds)


def test_it_ends(stage: Stage) -> None:
    what = {**content(), "until": "2020-01-01T00:00:00+00:00"}
    attempt(stage, what, sign(stage, what, "approver.one", "approver.two"))
    assert found(stage) is None


def test_an_entry_that_somebody_wrote_into_the_log_counts_for_nothing(stage: Stage) -> None:
    what = content()
    signed = {each.principal: each.signature.hex() for each in sign(stage, what, "approver.one")}
    with psycopg.connect(stage.url) as connection:
        for approvals in ({}, signed, {**signed, "approver.two": "00" * 64}):
            details = {"digest": digest_of(what), "content": what, "approvals": approvals}
            append(connection, "requester", ACTION, "promotion/test/prod", details)
    assert found(stage) is None
    other = {**what, "release": "b" * 64}
    both = {
        each.principal: each.signature.hex() for each in sign(stage, what, "approver.one", "approver.two")
    }
    with psycopg.connect(stage.url) as connection:
        details = {"digest": digest_of(what), "content": other, "approvals": both}
        append(connection, "requester", ACTION, "promotion/test/prod", details)
    assert found(stage, release="b" * 64) is None
