"""AWS' limits on what grows with a stage, told from its file and held to what the program renders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.clashes import clashes
from infra.cloud_settings import TenantKeyUser
from infra.clouds import create_clouds
from infra.configuration import read_stage_file
from infra.identities import create_identities
from infra.limits import (
    EVENT_PATTERN_CHARACTERS,
    IAM_INLINE_CHARACTERS,
    KEY_POLICY_BYTES,
    exceeded,
    key_policy_of,
    mirroring_policy,
)
from infra.settings import Settings
from kilo import cli
from kilo.tenancy import TenantEntry
from tests.components.recorder import Recording, record

ROOT = Path(__file__).parents[2]


def stage(name: str = "prod") -> Settings:
    return read_stage_file(ROOT / f"Pulumi.{name}.yaml")


def mirroring(count: int) -> Settings:
    settings = stage()
    names = tuple(f"team-{number:03}/service" for number in range(count))
    registry = settings.registry.model_copy(update={"repositories": names})
    return settings.model_copy(update={"registry": registry})


def with_tenants(count: int, users: int) -> Settings:
    """A stage whose tenants share a key that ``users`` roles may use for all but one of them by name."""
    settings = stage()
    tenants = tuple(TenantEntry(id=f"tenant-{n:04}", tier="bronze", kms_key="shared") for n in range(count))
    reached = tuple(tenant.id for tenant in tenants[1:])
    roles = tuple(
        TenantKeyUser(
            name=f"Role{number}",
            role_arn=f"arn:aws:iam::{settings.aws.account_id}:role/role-{number}",
            can=("decrypt",),
            tenants=reached,
        )
        for number in range(users)
    )
    aws = settings.aws.model_copy(update={"key_users": roles})
    return settings.model_copy(update={"tenants": tenants, "aws": aws})


def rendered(settings: Settings) -> Recording:
    return record(lambda: create_clouds(settings, create_identities(settings)), stack=settings.stage)


def pattern(recording: Recording) -> str:
    return recording.one("aws:cloudwatch/eventRule:EventRule").inputs["eventPattern"]


def test_as_many_repositories_as_a_pattern_holds_and_one_more() -> None:
    most = max(count for count in range(1, 200) if not list(exceeded(mirroring(count))))
    fits, passes = (len(pattern(rendered(mirroring(count)))) for count in (most, most + 1))
    assert fits <= EVENT_PATTERN_CHARACTERS < passes
    ((path, message),) = exceeded(mirroring(most + 1))
    assert path == "registry.repositories"
    assert message.startswith(f"{most + 2} repositories make a pattern of {passes} characters")


def test_the_mirrors_policy_is_counted_as_it_is_rendered() -> None:
    settings = mirroring(300)
    assert len(list(exceeded(settings))) == 2
    policy = (
        rendered(settings).one("aws:iam/rolePolicy:RolePolicy", "registry-mirror-mirror").inputs["policy"]
    )
    # The recorder's ARNs are shorter than AWS' own by region, account and kind.
    real, recorded = mirroring_policy(settings), json.loads(policy)
    assert [statement["Sid"] for statement in real["Statement"]] == [
        statement["Sid"] for statement in recorded["Statement"]
    ]
    assert len(real["Statement"][1]["Resource"]) == len(recorded["Statement"][1]["Resource"]) == 301
    assert len(json.dumps(real, separators=(",", ":"))) > IAM_INLINE_CHARACTERS


@pytest.mark.parametrize(("count", "users", "fits"), [(400, 2, True), (400, 6, False), (2000, 0, True)])
def test_a_key_that_many_tenants_share(count: int, users: int, fits: bool) -> None:
    settings = with_tenants(count, users)
    key = rendered(settings).one("aws:kms/key:Key", "tenant-keys--multi--shared")
    policy = json.loads(key.inputs["policy"])
    assert [s["Sid"] for s in policy["Statement"]] == [s["Sid"] for s in key_policy_of(settings, None)]
    assert (len(key.inputs["policy"].encode()) <= KEY_POLICY_BYTES) is fits
    found = list(exceeded(settings))
    assert bool(found) is not fits
    assert all("the key that tenants share" in message for _, message in found)


def test_check_says_what_passes_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    names = ", ".join(f"team-{number:03}/service" for number in range(100))
    text = (ROOT / "Pulumi.prod.yaml").read_text()
    assert "repositories: [shop/orders" in text
    before, _, after = text.partition("repositories: [shop/orders, shop/payments, shop/search]")
    (tmp_path / "Pulumi.prod.yaml").write_text(f"{before}repositories: [{names}]{after}")
    assert cli.main(["check"]) == 2
    assert "Pulumi.prod.yaml: kilo:registry.repositories: 101 repositories make a" in capsys.readouterr().err


def test_what_two_stages_cannot_both_have() -> None:
    prod, other = stage(), stage().model_copy(update={"stage": "prod-2"})
    assert list(clashes({"a": prod, "b": stage("stage")})) == []
    said = list(clashes({"a": prod, "b": other}))
    buckets = [line for line in said if "one for the world" in line]
    assert len(buckets) == 4
    assert sum("registry.repositories" in line for line in said) == 4
    replicated = {
        name: each.model_copy(
            update={"registry": each.registry.model_copy(update={"replica_regions": ("eu-west-1",)})}
        )
        for name, each in {"a": prod, "b": other}.items()
    }
    assert any("one replication setting for a registry" in line for line in clashes(replicated))
    away = other.model_copy(update={"aws": other.aws.model_copy(update={"region": "us-east-1"})})
    assert not any("repositories" in line for line in clashes({"a": prod, "b": away}))
