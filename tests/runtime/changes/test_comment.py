"""From the engine's JSON to a comment: what is shown, in which order, and what is never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.changes.comment import COMMENT_LIMIT, MARKER, render_comment, render_json
from runtime.changes.danger import dangers
from runtime.changes.preview import Change, PropertyChange, parse_preview
from runtime.changes.redaction import redact
from runtime.errors import BadInput

KEY = "aws:kms/key:Key"


def step(op: str, type_: str = KEY, name: str = "tenant-acme", **fields: Any) -> dict[str, Any]:
    return {"op": op, "urn": f"urn:pulumi:dev::kilo::kilo:keys:TenantKeys${type_}::{name}", **fields}


def preview(*steps: dict[str, Any]) -> list[Change]:
    return parse_preview(json.dumps({"steps": steps}))


def update(path: str, before: object, after: object, type_: str = "aws:sqs/queue:Queue") -> Change:
    return Change("update", type_, "subject", "urn", (PropertyChange(path, before, after),))


def test_steps_become_changes_without_bookkeeping() -> None:
    changes = preview(
        step("same"),
        step("create", "pulumi:providers:aws", "default"),
        step("create", "pulumi:pulumi:Stack", "kilo-dev"),
        step("read"),
        step("create"),
    )
    assert [(change.operation, change.type, change.name) for change in changes] == [
        ("create", KEY, "tenant-acme")
    ]


def test_an_update_names_each_property_before_and_after() -> None:
    (change,) = preview(
        step(
            "update",
            oldState={"inputs": {"rules": [{"days": 30}], "tags": {"a.b/c": "x"}}},
            newState={"inputs": {"rules": [{"days": 7}], "tags": {"a.b/c": "y"}}},
            detailedDiff={"rules[0].days": {"kind": "update"}, 'tags["a.b/c"]': {"kind": "update"}},
        )
    )
    assert change.properties == (
        PropertyChange("rules[0].days", 30, 7),
        PropertyChange('tags["a.b/c"]', "x", "y"),
    )


def test_a_replacement_is_one_change_and_says_what_forces_it() -> None:
    state: Any = {
        "oldState": {"inputs": {"bucket": "a"}, "protect": True},
        "newState": {"inputs": {"bucket": "b"}},
    }
    changes = preview(
        step("create-replacement", **state),
        step(
            "replace", **state, detailedDiff={"bucket": {"kind": "update-replace"}}, replaceReasons=["bucket"]
        ),
        step("delete-replaced", **state),
    )
    assert [change.operation for change in changes] == ["replace"]
    assert changes[0].protected
    assert changes[0].properties[0].forces_replacement


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"steps": [{}]}', '{"steps": [{"op": "create", "urn": "x"}]}']
)
def test_what_is_no_preview_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="pulumi preview --json"):
        parse_preview(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("delete", KEY, "tenant-acme", "urn"), "unreadable"),
        (Change("replace", "aws:s3/bucket:Bucket", "backups", "urn"), "objects are lost"),
        (Change("delete", "aws:sqs/queueOther:Other", "x", "urn", protected=True), "refused"),
        (update("rules[0].expiration.days", 30, 7), "shortened"),
        (update("retentionPolicy.retentionPeriod", "86400", "3600"), "shortened"),
        (update("deletionWindowInDays", 30, None), "shortened"),
        (update("policy", "{}", '{"Statement": []}'), "who may reach it"),
        (update("blockPublicAcls", True, False), "turned off"),
    ],
)
def test_what_cannot_be_taken_back_is_dangerous(change: Change, reason: str) -> None:
    assert any(reason in danger for danger in dangers(change))


@pytest.mark.parametrize(
    "change",
    [
        Change("create", KEY, "tenant-acme", "urn"),
        Change("delete", "kubernetes:core/v1:ConfigMap", "outputs", "urn"),
        update("rules[0].expiration.days", 7, 30),
        update("blockPublicAcls", False, True),
        update("tags.days-off", 3, 2),
    ],
)
def test_what_can_be_taken_back_is_not(change: Change) -> None:
    assert dangers(change) == []


def test_dangerous_changes_come_first() -> None:
    text = render_comment(
        {
            "prod": [
                Change("create", "kubernetes:core/v1:ConfigMap", "added", "urn"),
                Change("delete", KEY, "tenant-acme", "urn"),
            ],
            "dev": [],
        }
    )
    assert text.startswith(MARKER)
    assert "| prod | 0 | 1 | 0 | 1 | **1** |" in text
    assert text.index("`tenant-acme`") < text.index("added")
    assert "#### dev\n\nNo changes." in text


def test_a_comment_fits_and_says_where_it_was_cut() -> None:
    changes = [
        Change("create", "kubernetes:core/v1:ConfigMap", f"number-{index:06}", "urn") for index in range(5000)
    ]
    text = render_comment({"prod": changes})
    assert len(text) <= COMMENT_LIMIT
    assert "cut here" in text


CANARIES = {
    "arn:aws:kms:eu-central-1:210987654321:key/1": "210987654321",
    "210987654321.dkr.ecr.eu-central-1.amazonaws.com/kilo": "210987654321",
    "projects/445566778899/locations/global": "445566778899",
    "postgresql://kilo:canary-password@db/kilo": "canary-password",
    "AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "-----BEGIN EC PRIVATE KEY-----\\ncanary-key\\n-----END EC PRIVATE KEY-----": "canary-key",
}


@pytest.mark.parametrize(("value", "canary"), CANARIES.items())
def test_accounts_and_credentials_reach_neither_comment_nor_json(value: str, canary: str) -> None:
    stages = {"dev": [update("description", "before", value)]}
    assert canary not in render_comment(stages)
    assert canary not in render_json(stages)
    assert canary not in redact(value)


def test_the_json_has_the_dangers_too() -> None:
    document = json.loads(render_json({"dev": [Change("delete", KEY, "tenant-acme", "urn")]}))
    assert document["dev"][0]["operation"] == "delete"
    assert document["dev"][0]["dangers"]
