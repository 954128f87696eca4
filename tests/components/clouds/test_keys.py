"""Tenants' keys: who administers, who uses, under which context, and that they are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.clouds.key_policy import DECRYPT, ENCRYPT, KeyUser
from components.clouds.tenant_keys import TenantKeys, TenantKeysArgs
from tests.components.recorder import Recording, multi_region_key_arn, record

ADMINISTRATOR = "arn:aws:iam::123456789012:role/key-administrator"
INGEST = "arn:aws:iam::123456789012:role/ingest"
CONSUMER = "arn:aws:iam::123456789012:role/consumer"
KEY_MAKING = "arn:aws:iam::123456789012:role/key-making"
KEY = "aws:kms/key:Key"
REPLICA = "aws:kms/replicaKey:ReplicaKey"
ALIAS = "aws:kms/alias:Alias"


def keys(
    *, protect: bool = True, tenants: tuple[str, ...] = ("acme", "globex"), **settings: Any
) -> Recording:
    return record(
        lambda: TenantKeys(
            "tenant-keys",
            TenantKeysArgs(
                tenants=tenants,
                alias_prefix="alias/kilo/dev/tenant",
                administrators=[ADMINISTRATOR],
                users=[
                    KeyUser("Ingest", INGEST, DECRYPT),
                    KeyUser("Consumer", CONSUMER, DECRYPT),
                    KeyUser("KeyMaking", KEY_MAKING, ENCRYPT),
                ],
                deletion_window_days=30,
                protect=protect,
                tags={"project": "kilo"},
                **settings,
            ),
        )
    )


def replicated(**settings: Any) -> Recording:
    return keys(sharing=("small", "tiny"), replica_regions=("eu-west-1", "eu-north-1"), **settings)


def statements(recording: Recording, tenant: str) -> dict[str, dict[str, Any]]:
    policy = json.loads(recording.one(KEY, f"tenant-keys-{tenant}").inputs["policy"])
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_each_tenant_has_one_key_and_one_alias() -> None:
    recording = keys()
    # Registrations arrive in any order.
    assert sorted(key.inputs["tags"]["tenant"] for key in recording.of(KEY)) == ["acme", "globex"]
    alias = recording.one(ALIAS, "tenant-keys-acme")
    assert alias.inputs["name"] == "alias/kilo/dev/tenant/acme"
    assert alias.inputs["targetKeyId"] == "tenant-keys-acme-key-id"


def test_keys_rotate_every_year_and_wait_before_they_go() -> None:
    key = keys().one(KEY, "tenant-keys-acme")
    assert key.inputs["enableKeyRotation"] is True
    assert key.inputs["rotationPeriodInDays"] == 365
    assert key.inputs["deletionWindowInDays"] == 30


def test_keys_and_aliases_are_protected_and_stay_in_the_cloud() -> None:
    recording = keys()
    for resource in [*recording.of(KEY), *recording.of(ALIAS)]:
        assert resource.protect
        assert resource.retain_on_delete


def test_a_throw_away_stage_can_let_go_of_keys() -> None:
    recording = keys(protect=False)
    for resource in [*recording.of(KEY), *recording.of(ALIAS)]:
        assert not resource.protect
        assert not resource.retain_on_delete


def test_a_key_is_used_only_with_its_own_tenant_in_the_context() -> None:
    recording = keys()
    for tenant in ("acme", "globex"):
        for sid in ("IngestUses", "ConsumerUses", "KeyMakingUses"):
            condition = statements(recording, tenant)[sid]["Condition"]
            assert condition == {"StringEquals": {"kms:EncryptionContext:tenant": tenant}}


def test_administrators_cannot_use_and_users_cannot_administer() -> None:
    found = statements(keys(), "acme")
    assert found["Administer"]["Principal"] == {"AWS": [ADMINISTRATOR]}
    cryptographic = {
        "kms:Encrypt",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "kms:ReEncryptTo",
        "kms:CreateGrant",
    }
    assert not cryptographic & set(found["Administer"]["Action"])
    for sid in ("IngestUses", "ConsumerUses", "IngestDescribes", "ConsumerDescribes"):
        assert set(found[sid]["Action"]) <= {"kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"}


def test_who_serves_requests_can_only_unwrap_keys_and_who_makes_them_can_only_wrap() -> None:
    found = statements(keys(), "acme")
    assert found["IngestUses"]["Action"] == found["ConsumerUses"]["Action"] == ["kms:Decrypt"]
    assert found["KeyMakingUses"]["Action"] == ["kms:Encrypt"]


def test_the_account_root_is_not_named_so_that_no_iam_policy_widens_a_key() -> None:
    for statement in statements(keys(), "acme").values():
        assert ":root" not in json.dumps(statement["Principal"])


def test_keys_belong_to_their_component() -> None:
    recording = keys()
    component = recording.one("kilo:security:TenantKeys")
    assert {resource.parent for resource in recording.resources if resource.custom} == {component.urn}


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_another_tenant_changes_nothing_of_those_that_are_there(tenant: str) -> None:
    before, after = keys(), keys(tenants=("acme", "globex", "initech"))
    name = f"tenant-keys-{tenant}"
    assert after.one(KEY, name) == before.one(KEY, name)
    assert len(after.of(KEY)) == len(before.of(KEY)) + 1


def granted(user: KeyUser, *, sharing: tuple[str, ...] = ()) -> Recording:
    return record(
        lambda: TenantKeys(
            "tenant-keys",
            TenantKeysArgs(
                tenants=("acme", "globex"),
                alias_prefix="alias/kilo/dev/tenant",
                administrators=[ADMINISTRATOR],
                users=[user],
                deletion_window_days=30,
                protect=True,
                tags={"project": "kilo"},
                sharing=sharing,
            ),
        )
    )


def policy(recording: Recording, name: str) -> dict[str, dict[str, Any]]:
    found = json.loads(recording.one(KEY, name).inputs["policy"])
    return {statement["Sid"]: statement for statement in found["Statement"]}


def test_a_user_of_some_tenants_has_no_part_in_the_keys_of_others() -> None:
    recording = granted(KeyUser("Support", CONSUMER, DECRYPT, frozenset({"acme"})))
    assert set(policy(recording, "tenant-keys-acme")) == {"Administer", "SupportUses", "SupportDescribes"}
    assert set(policy(recording, "tenant-keys-globex")) == {"Administer"}


def test_tenants_that_share_have_one_key_that_asks_for_a_tenant() -> None:
    recording = granted(KeyUser("Ingest", INGEST, ENCRYPT), sharing=("small", "tiny"))
    assert len(recording.of(KEY)) == 3
    alias = recording.one(ALIAS, "tenant-keys--shared")
    assert alias.inputs["name"] == "alias/kilo/dev/tenant-shared"
    assert (alias.protect, alias.retain_on_delete) == (True, True)
    use = policy(recording, "tenant-keys--shared")["IngestUses"]
    assert use["Condition"] == {"Null": {"kms:EncryptionContext:tenant": "false"}}
    assert policy(recording, "tenant-keys-acme")["IngestUses"]["Condition"] == {
        "StringEquals": {"kms:EncryptionContext:tenant": "acme"}
    }


def test_a_user_of_some_tenants_opens_only_theirs_under_a_shared_key() -> None:
    recording = granted(KeyUser("Support", CONSUMER, DECRYPT, frozenset({"tiny"})), sharing=("small", "tiny"))
    assert policy(recording, "tenant-keys--shared")["SupportUses"]["Condition"] == {
        "StringEquals": {"kms:EncryptionContext:tenant": ["tiny"]}
    }


def test_ten_thousand_tenants_that_share_cost_one_key_and_a_policy_that_kms_takes() -> None:
    sharing = tuple(f"tenant-{number}" for number in range(10_000))
    recording = granted(KeyUser("Ingest", INGEST, ENCRYPT), sharing=sharing)
    assert len(recording.of(KEY)) == 3
    assert len(recording.one(KEY, "tenant-keys--shared").inputs["policy"]) < 32_768


def test_each_key_is_multi_region_with_a_replica_under_the_same_policy_in_each_region() -> None:
    recording = replicated()
    assert len(recording.of(KEY)) == 3
    for whose in ("acme", "globex", "-shared"):
        key = recording.one(KEY, f"tenant-keys--multi-{whose}")
        assert key.inputs["multiRegion"] is True
        alias = recording.one(ALIAS, f"tenant-keys-{whose}")
        assert alias.inputs["targetKeyId"] == f"{key.name}-key-id"
        for region in ("eu-west-1", "eu-north-1"):
            replica = recording.one(REPLICA, f"tenant-keys--multi-{whose}-{region}")
            assert (replica.inputs["region"], replica.inputs["deletionWindowInDays"]) == (region, 30)
            assert replica.inputs["primaryKeyArn"] == multi_region_key_arn(key.name)
            assert replica.inputs["policy"] == key.inputs["policy"]
            assert replica.inputs.get("tags") == key.inputs.get("tags")
            assert replica.protect
            assert replica.retain_on_delete


def test_a_key_goes_to_no_region_that_is_not_named() -> None:
    found = policy(replicated(), "tenant-keys--multi-acme")
    assert found["Replicate"]["Action"] == ["kms:ReplicateKey"]
    regions = {"kms:ReplicaRegion": ["eu-west-1", "eu-north-1"]}
    assert found["Replicate"]["Condition"] == {"StringEquals": regions}
    assert "kms:ReplicateKey" not in found["Administer"]["Action"]
    assert "Replicate" not in policy(keys(), "tenant-keys-acme")


def test_keys_from_before_there_were_replicas_stay_as_they_are_while_they_are_needed() -> None:
    before = keys(sharing=("small", "tiny"))
    during, after = replicated(keep_former=True), replicated()
    for key in before.of(KEY):
        assert during.one(KEY, key.name) == key
        assert "multiRegion" not in key.inputs
    assert len(during.of(KEY)) == 6
    assert len(after.of(KEY)) == 3
    for kind in (KEY, REPLICA, ALIAS):
        for each in after.of(kind):
            assert during.one(kind, each.name) == each
