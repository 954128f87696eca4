"""The judge itself, held to what AWS documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.access.conditions import met, wild
from tests.infra.access.evaluator import Call, World, google_allows

ROLE, OTHER = "arn:aws:iam::111111111111:role/a", "arn:aws:iam::222222222222:role/b"
QUEUE, KEY = "arn:aws:sqs:eu-west-1:111111111111:q", "arn:aws:kms:eu-west-1:111111111111:key/k"
TRUSTED = "arn:aws:iam::111111111111:role/trusted"


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def allowed(call: Call, own: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> bool:
    world = World()
    if own:
        world.identities[call.principal] = [own]
    if theirs:
        world.resources[call.resource] = theirs
    return world.decide(call).allowed


SEND = Call(ROLE, "sqs:SendMessage", QUEUE)
FROM_OUTSIDE = Call(OTHER, "sqs:SendMessage", QUEUE)
DECRYPT = Call(ROLE, "kms:Decrypt", KEY)


def test_nothing_is_allowed_without_a_word_and_a_denial_always_wins() -> None:
    assert not allowed(SEND)
    assert allowed(SEND, document(allow("sqs:SendMessage")))
    assert not allowed(SEND, document(allow("*"), deny("sqs:Send*")))
    assert not allowed(SEND, document(allow("*")), document(deny("sqs:*", Principal="*")))
    assert not allowed(SEND, document(allow("*")), document(deny("sqs:*", Principal={"AWS": "111111111111"})))


def test_within_an_account_one_policy_is_enough_and_across_accounts_both_are_needed() -> None:
    granted = document(allow("sqs:SendMessage", Principal={"AWS": [ROLE, OTHER]}))
    own = document(allow("sqs:SendMessage"))
    assert allowed(SEND, theirs=granted)
    assert not allowed(FROM_OUTSIDE, theirs=granted)
    assert not allowed(FROM_OUTSIDE, own)
    assert allowed(FROM_OUTSIDE, own, granted)


def test_a_key_belongs_to_its_policy_unless_that_hands_on_to_the_account() -> None:
    own = document(allow("kms:*"))
    assert not allowed(DECRYPT, own)
    assert not allowed(DECRYPT, own, document(allow("kms:Encrypt", Principal={"AWS": ROLE})))
    assert allowed(DECRYPT, None, document(allow("kms:Decrypt", Principal={"AWS": ROLE})))
    root = document(allow("kms:*", Principal={"AWS": "arn:aws:iam::111111111111:root"}))
    assert not allowed(DECRYPT, None, root)
    assert allowed(DECRYPT, own, root)


def test_a_role_is_taken_by_those_alone_whom_it_trusts() -> None:
    take = Call(ROLE, "sts:AssumeRole", TRUSTED)
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ROLE}}
    assert not allowed(take, document(allow("*")))
    assert allowed(take, None, document(trust))
    assert not allowed(Call(OTHER, "sts:AssumeRole", TRUSTED), None, document(trust))


@pytest.mark.parametrize(
    ("statement", "through"),
    [
        (allow("SQS:sendmessage"), True),
        (allow("sqs:Send?essage"), True),
        (allow("sqs:Send"), False),
        (allow("sqs:*", "arn:aws:sqs:*:111111111111:q"), True),
        (allow("sqs:*", "arn:aws:sqs:*"), False),
        (allow("sqs:*", "arn:aws:sqs:eu-west-1:111111111111:Q"), False),
        ({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": ["sqs:*", "iam:*"], "Resource": "*"}, False),
        ({"Effect": "Allow", "Action": "*", "NotResource": QUEUE}, False),
        ({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:sqs:*:*:other"}, True),
        (allow("sqs:*", "arn:aws:sqs:eu-west-1:${aws:PrincipalAccount}:q"), True),
        (allow("sqs:*", "arn:aws:sqs:eu-west-1:111111111111:${aws:username}"), False),
        (allow("sqs:*", "arn:aws:sqs:eu-west-1:111111111111:${aws:username, 'q'}"), True),
    ],
)
def test_actions_resources_and_variables(statement: dict[str, Any], through: bool) -> None:
    assert allowed(SEND, document(statement)) == through


def test_a_variable_is_no_wildcard_and_old_versions_know_none() -> None:
    statement = allow("sqs:*", "arn:aws:sqs:eu-west-1:111111111111:${aws:PrincipalTag/team}")
    starred = Call(ROLE, "sqs:SendMessage", QUEUE, {"aws:PrincipalTag/team": "*"})
    assert not allowed(starred, document(statement))
    named = Call(ROLE, "sqs:SendMessage", QUEUE, {"aws:PrincipalTag/team": "q"})
    assert allowed(named, document(statement))
    assert not allowed(named, {"Version": "2008-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    ("condition", "context", "through"),
    [
        (
            {"StringEquals": {"kms:EncryptionContext:tenant": ["a", "b"]}},
            {"kms:encryptioncontext:TENANT": "b"},
            1,
        ),
        ({"StringEquals": {"k": "A"}}, {"k": "a"}, 0),
        ({"StringEquals": {"k": "a*"}}, {"k": "ab"}, 0),
        ({"StringEquals": {"k": "a"}}, {}, 0),
        ({"StringEqualsIfExists": {"k": "a"}}, {}, 1),
        ({"StringNotEquals": {"k": ["a", "b"]}}, {"k": "b"}, 0),
        ({"StringNotEquals": {"k": "a"}}, {}, 1),
        ({"StringLike": {"k": "a[*]"}}, {"k": "a[x]"}, 1),
        ({"StringLike": {"k": "a[x]"}}, {"k": "ax"}, 0),
        ({"Null": {"k": "true"}}, {}, 1),
        ({"Null": {"k": False}}, {}, 0),
        ({"Bool": {"k": False}}, {"k": "false"}, 1),
        ({"NumericGreaterThan": {"k": "36"}}, {"k": "36.5"}, 1),
        ({"ArnLike": {"k": "arn:aws:s3:::b*"}}, {"k": "arn:aws:s3:::bucket"}, 1),
        ({"ArnLike": {"k": "arn:aws:*"}}, {"k": "arn:aws:s3:::bucket"}, 0),
        ({"ArnNotLike": {"k": "arn:aws:s3:::b*"}}, {"k": "arn:aws:s3:::bucket"}, 0),
        ({"DateLessThan": {"k": "2026-11-29T00:00:00Z"}}, {"k": "2026-11-28T23:00:00Z"}, 1),
        ({"IpAddress": {"k": ["10.0.0.0/8"]}}, {"k": "10.1.1.1"}, 1),
        ({"NotIpAddress": {"k": ["10.0.0.0/8"]}}, {"k": "10.1.1.1"}, 0),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "c"]}, 0),
        ({"ForAllValues:StringEquals": {"k": ["a"]}}, {}, 1),
        ({"ForAnyValue:StringEquals": {"k": ["a"]}}, {"k": ["c", "a"]}, 1),
        ({"StringEquals": {"k": "a", "l": "b"}}, {"k": "a"}, 0),
    ],
)
def test_conditions(condition: dict[str, Any], context: dict[str, Any], through: int) -> None:
    lowered = {name.lower(): value for name, value in context.items()}
    assert met(condition, lowered, variables=True) == bool(through)


def test_wildcards_are_two_and_can_be_plain() -> None:
    assert wild("a?c*", "abcdef")
    assert not wild("a?c", "ac")
    assert not wild(r"a\*", "abc")
    assert wild("*", "a\nb")


@pytest.mark.parametrize(
    "statement",
    [
        allow("*", Condition={"StringSortOfEquals": {"k": "a"}}),
        allow("*", Conditions={}),
        {**allow("*"), "Effect": "allow"},
        allow("*", Principal="*"),
    ],
)
def test_what_it_does_not_know_it_does_not_judge(statement: dict[str, Any]) -> None:
    call = Call(ROLE, "sqs:SendMessage", QUEUE, {"k": "a"})
    with pytest.raises(ValueError, match=r"called|Effect|principal"):
        allowed(call, document(statement))


def test_googles_conditions_are_prefixes_and_nothing_else() -> None:
    role = {"role": "roles/storage.objectViewer", "member": "user:a"}
    starts = {"expression": 'resource.name.startsWith("a/") || resource.name.startsWith("b/")'}
    assert google_allows([role], "user:a", "storage.objects.get", "x")
    assert not google_allows([role], "user:b", "storage.objects.get", "x")
    assert not google_allows([role], "user:a", "storage.objects.delete", "x")
    assert google_allows([{**role, "condition": starts}], "user:a", "storage.objects.get", "b/x")
    assert not google_allows([{**role, "condition": starts}], "user:a", "storage.objects.get", "x/a/")
    with pytest.raises(ValueError, match="none that is understood"):
        google_allows([{**role, "condition": {"expression": "true"}}], "user:a", "storage.objects.get", "x")
