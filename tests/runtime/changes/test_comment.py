"""From the engine's JSON to a comment: what is shown, in which order, and what is never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kilo.changes.comment import COMMENT_LIMIT, MARKER, render_comment, render_json
from kilo.changes.danger import dangers
from kilo.changes.markdown import cut, fenced
from kilo.changes.preview import Change, Preview, PropertyChange, Violation, parse_events
from kilo.changes.redaction import redact
from kilo.changes.values import value_lines
from kilo.errors import BadInput

KEY = "aws:kms/key:Key"


def step(op: str, type_: str = KEY, name: str = "tenant-acme", **fields: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:dev::kilo::kilo:keys:TenantKeys${type_}::{name}"
    return {"resourcePreEvent": {"metadata": {"op": op, "urn": urn, **fields}}}


def parsed(*events: dict[str, Any]) -> Preview:
    return parse_events("\n".join(json.dumps(event) for event in ({"preludeEvent": {}}, *events)))


def preview(*steps: dict[str, Any]) -> tuple[Change, ...]:
    return parsed(*steps).changes


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
            old={"inputs": {"rules": [{"days": 30}], "tags": {"a.b/c": "x"}}},
            new={"inputs": {"rules": [{"days": 7}], "tags": {"a.b/c": "y"}}},
            detailedDiff={"rules[0].days": {"diffKind": "update"}, 'tags["a.b/c"]': {"diffKind": "update"}},
        )
    )
    assert change.properties == (
        PropertyChange("rules[0].days", 30, 7),
        PropertyChange('tags["a.b/c"]', "x", "y"),
    )


def test_a_secret_shows_as_changed_and_not_as_what() -> None:
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "canary"}
    (change,) = preview(
        step(
            "update",
            old={"inputs": {"data": secret, "env": [{"name": "URL", "value": secret}], "plain": 1}},
            new={"inputs": {"data": secret, "env": [{"name": "URI", "value": secret}], "plain": 1}},
            detailedDiff={
                "data.password": {"diffKind": "update"},
                "env": {"diffKind": "update"},
                "plain": {"diffKind": "update"},
            },
        )
    )
    assert change.properties == (
        PropertyChange("data.password", "[secret]", "[secret]"),
        PropertyChange("env", [{"name": "URL", "value": "[secret]"}], [{"name": "URI", "value": "[secret]"}]),
    )
    assert "URI" in render_comment({"dev": Preview((change,))})


def test_a_replacement_is_one_change_and_says_what_forces_it() -> None:
    state: Any = {
        "old": {"inputs": {"bucket": "a"}, "protect": True},
        "new": {"inputs": {"bucket": "b"}},
    }
    changes = preview(
        step("create-replacement", **state),
        step("replace", **state, detailedDiff={"bucket": {"diffKind": "update-replace"}}, keys=["bucket"]),
        step("delete-replaced", **state),
    )
    assert [change.operation for change in changes] == ["replace"]
    assert changes[0].protected
    assert changes[0].properties[0].forces_replacement


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"steps": []}',
        '{"preludeEvent": {}, "resourcePreEvent": {"metadata": {"op": "create", "urn": "x"}}}',
    ],
)
def test_what_is_no_preview_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="pulumi preview --json"):
        parse_events(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("delete", KEY, "tenant-acme", "urn"), "unreadable"),
        (Change("replace", "aws:s3/bucket:Bucket", "backups", "urn"), "objects are lost"),
        (Change("delete", "aws:sqs/queueOther:Other", "x", "urn", protected=True), "refused"),
        (update("rules[0].expiration.days", 30, 7), "shortened"),
        (update("retentionPolicy.retentionPeriod", "86400", "3600"), "shortened"),
        (update("deletionWindowInDays", 30, None), "shortened"),
        (update("lifecycleRules[0].condition.age", 30, 7), "shortened"),
        (update("args[3]", "--retention-days=14", "--retention-days=7"), "--retention-days=14"),
        (update("policy", "{}", '{"Statement": []}'), "who may reach it"),
        (update("blockPublicAcls", True, False), "turned off"),
        (update("forceDestroy", False, True), "take along"),
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
        update("args[3]", "--retention-days=7", "--retention-days=14"),
    ],
)
def test_what_can_be_taken_back_is_not(change: Change) -> None:
    assert dangers(change) == []


def test_dangerous_changes_come_first() -> None:
    text = render_comment(
        {
            "prod": Preview(
                (
                    Change("create", "kubernetes:core/v1:ConfigMap", "added", "urn"),
                    Change("delete", KEY, "tenant-acme", "urn"),
                )
            ),
            "dev": Preview(),
        }
    )
    assert text.startswith(MARKER)
    assert "| prod | 0 | 1 | 0 | 1 | **1** | kept |" in text
    assert text.index("`tenant-acme`") < text.index("added")
    assert "#### dev\n\nNo changes." in text


def test_what_is_dangerous_in_the_last_stage_comes_before_all_changes_of_the_first() -> None:
    many = Preview(
        tuple(
            Change("create", "kubernetes:core/v1:ConfigMap", f"number-{index:06}", "urn")
            for index in range(5000)
        )
    )
    text = render_comment({"dev": many, "prod": Preview((Change("delete", KEY, "tenant-acme", "urn"),))})
    assert "cut here" in text
    assert "#### dev" not in text
    assert text.index("`tenant-acme`") < text.index("All changes in dev")


def test_a_comment_fits_and_says_where_it_was_cut() -> None:
    changes = [
        Change("create", "kubernetes:core/v1:ConfigMap", f"number-{index:06}", "urn") for index in range(5000)
    ]
    assert "number-004999" in render_comment({"prod": Preview(tuple(changes))}, limited=False)
    text = render_comment({"prod": Preview(tuple(changes))})
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
    stages = {
        "dev": Preview(
            (update("description", "before", value),), (Violation("rule", value, mandatory=True),), (value,)
        )
    }
    assert canary not in render_comment(stages)
    assert canary not in render_json(stages)
    assert canary not in redact(value)


def test_the_json_has_the_dangers_too() -> None:
    document = json.loads(render_json({"dev": Preview((Change("delete", KEY, "tenant-acme", "urn"),))}))
    assert document["dev"]["changes"][0]["operation"] == "delete"
    assert document["dev"]["changes"][0]["dangers"]


def policy(message: str, level: str = "mandatory") -> dict[str, Any]:
    return {"policyEvent": {"message": message, "policyName": "protected", "enforcementLevel": level}}


def test_broken_policies_and_errors_are_said() -> None:
    found = parsed(
        policy("Keys are protected.\nbackups: not protected; set protect\n"),
        policy("Keys are protected.\naudit: not protected; set protect\n", "advisory"),
        {"diagnosticEvent": {"severity": "error", "message": "the stage has no tenants\n"}},
        {"diagnosticEvent": {"severity": "debug", "message": "canary"}},
    )
    assert found.violations == (
        Violation("protected", "backups: not protected; set protect", mandatory=True),
        Violation("protected", "audit: not protected; set protect", mandatory=False),
    )
    text = render_comment({"prod": found})
    assert "| **1 broken**, 1 reported |" in text
    assert ":no_entry: backups: not protected; set protect (`protected`)" in text
    assert "the stage has no tenants" in text
    assert "canary" not in text


def test_a_rule_that_waits_for_a_value_is_no_finding() -> None:
    message = (
        "can't run policy 'kms-key-policy' from policy pack 'kilo@v0.0.1' during preview: "
        "string value at .policy can't be known during preview\n"
    )
    assert parsed(policy(message, "advisory")).violations == ()


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (30, 7, ["- 30", "+ 7"]),
        (None, "new", ['+ "new"']),
        (True, None, ["- true"]),
        ("a", "04da6b54-80e4-46f7-96ec-b56ff0331ba9", ["+ (known after the deployment)"]),
        ("one\ntwo\nthree", "one\n2\nthree", ["- two", "+ 2"]),
        (
            "a" * 200 + " acme " + "z" * 200,
            "a" * 200 + " acme|hooli " + "z" * 200,
            [
                "- …" + "a" * 35 + " acme " + "z" * 39 + "…",
                "+ …" + "a" * 35 + " acme|hooli " + "z" * 39 + "…",
            ],
        ),
        (
            json.dumps({"routes": [f"number-{index}" for index in range(40)]}),
            json.dumps({"routes": [f"number-{index}" for index in range(39)] + ["other"]}),
            ['-   "number-39"', '+   "other"'],
        ),
    ],
)
def test_values_are_shown_by_what_differs(before: object, after: object, lines: list[str]) -> None:
    assert value_lines(before, after) == lines


def test_a_long_difference_is_cut_and_said() -> None:
    lines = value_lines("\n".join(map(str, range(100))), "\n".join("x" * 500 for _ in range(100)))
    assert lines[-1] == "… 176 more lines"
    assert max(map(len, lines)) <= 160


HOSTILE = "```\n</details>\n<img src=x> @everyone #1 [here](https://evil.example) **approved**\n````"


def test_what_a_branch_writes_stays_text() -> None:
    change = Change("delete", KEY, "a`b @team <b>", "urn", (PropertyChange("note", None, HOSTILE),))
    found = (Violation("p`q", "told @team <b>[x](y)</b>\n# approved", mandatory=True),)
    text = render_comment({"dev": Preview((change,), found, (HOSTILE,))})
    outside: list[str] = []
    fence = ""
    for line in text.split("\n"):
        run = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            if line == fence:
                fence = ""
        elif len(run) >= 3:
            fence = run
        else:
            outside.append(line)
    assert not fence
    shown = "\n".join(outside)
    assert shown.count("<details>") == shown.count("</details>") == 1
    assert not any(
        word in shown for word in ("evil", "@everyone", "<img", "told @team", "<b>[", "\n# approved")
    )


@pytest.mark.parametrize("limit", range(300, 900, 7))
def test_what_is_cut_is_closed_where_it_is_open_and_fits(limit: int) -> None:
    block = [*fenced("diff", "\n".join(f"+ line {n} ````" for n in range(20))), "", "</details>", ""]
    text = "\n".join(["### Preview", "", "plain words\n" * 20, "<details><summary>All</summary>", "", *block])
    shown = cut(text, limit)
    assert len(shown) <= limit
    assert "cut here" in shown.rsplit("\n\n", 1)[1]
    opened = "<details>" in shown
    assert shown.count("</details>") == opened
    assert [line.startswith("`````") for line in shown.split("\n")].count(True) in {0, 2}


@pytest.mark.parametrize(
    "secret",
    [
        "connecting with password=hunter2 failed",
        "postgres options host=db password='hunter2'",
        'DB_PASSWORD="hunter2"',
        "https://api.example/?x=1&api_key=hunter2&y=2",
        "Authorization: Bearer hunter2",
        "ghp_hunter2hunter2hunter2hunter2",
        "github_pat_hunter2hunter2hunter2hunter2",
        "glpat-hunter2hunter2hunter2hunter2",
        "xoxb-hunter2hunter2-1",
        "sk_live_hunter2hunter2hunter2",
        "eyJhbGciOi.eyJodW50ZXIyIjoxfQ.hunter2",
        "https://hooks.slack.com/services/T0/B0/hunter2",
        "https://discord.com/api/webhooks/1/hunter2",
        "https://example.webhook.office.com/webhookb2/hunter2",
    ],
)
def test_secrets_of_the_common_vendors_are_not_shown(secret: str) -> None:
    assert "hunter2" not in redact(secret)
    assert "[secret]" in redact(secret)


def test_what_is_no_secret_is_left_as_it_is() -> None:
    for text in ("token of the tour", "passwordless", "npm_config", "secretName: kilo", "keys = 3"):
        assert redact(text) == text
    assert redact("password=a&user=b") == "password=[secret]&user=b"
