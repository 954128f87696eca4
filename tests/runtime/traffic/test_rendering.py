"""What the renderers promise without a running gateway, and what Envoy says of their output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.tenancy import RateLimit, Tenant
from kilo.traffic.cli import app
from kilo.traffic.envoy import container_args, render_files
from kilo.traffic.settings import GatewaySettings, Upstream
from kilo.traffic.validation import render_whole, validate
from tests.runtime.traffic.support import ENVOY, make_tenant

ROOT = Path(__file__).parents[3]
STABLE = Upstream(host="ingest.kilo-dev.svc.cluster.local", port=10081)
NEXT = Upstream(host="ingest-next.kilo-dev.svc.cluster.local", port=10081)
SETTINGS = GatewaySettings(stable=STABLE, next=NEXT)


def thousand() -> list[Tenant]:
    tiers = ("gold", "silver", "bronze")
    return [
        make_tenant(f"tenant-{number}", tier=tiers[number % 3], retries=number % 3) for number in range(1000)
    ]


@pytest.mark.parametrize(
    ("tenants", "gateway"),
    [
        (
            [make_tenant("acme", next_weight_percent=10), make_tenant("globex", tier="bronze", retries=3)],
            SETTINGS,
        ),
        ([make_tenant("acme")], GatewaySettings(stable=STABLE, replicas=3)),
        (thousand(), SETTINGS),
    ],
    ids=["two tenants", "no next version", "a thousand tenants"],
)
def test_envoy_accepts_what_is_rendered(tenants: list[Tenant], gateway: GatewaySettings) -> None:
    validate(render_whole(tenants, gateway), ENVOY)


def test_envoy_refuses_a_broken_part_by_name() -> None:
    whole = render_whole([make_tenant("acme")], SETTINGS)
    whole["static_resources"]["clusters"][1]["lb_policy"] = "NO_SUCH_POLICY"
    with pytest.raises(CheckFailed, match="NO_SUCH_POLICY"):
        validate(whole, ENVOY)


def test_absent_envoy_is_said_in_one_line() -> None:
    with pytest.raises(Unreachable, match="no-such-envoy: not found"):
        validate(render_whole([make_tenant("acme")], SETTINGS), "no-such-envoy")


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_a_stages_file_is_judged_by_the_envoy_that_came_with_kilo(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = CliRunner().invoke(app, ["validate", str(ROOT / f"Pulumi.{stage}.yaml")])
    assert done.exit_code == 0, done.output
    assert "envoy accepts the gateway of" in done.output


def test_one_more_tenant_leaves_the_pods_template_alone() -> None:
    before, after = [make_tenant("acme")], [make_tenant("acme"), make_tenant("globex", next_weight_percent=5)]
    changed = {
        name
        for name, text in render_files(after, SETTINGS).items()
        if text != render_files(before, SETTINGS)[name]
    }
    # Limits of old tenants stay as they are, and so does what their buckets hold.
    assert changed == {"routes.json"}
    assert container_args(before, SETTINGS) == container_args(after, SETTINGS)


def test_ten_thousand_tenants_fit_and_more_than_fit_are_refused_with_the_number_that_does() -> None:
    names = [f"a-tenant-with-quite-a-long-name-{number:05}" for number in range(10_000)]
    tiers = ("gold", "silver", "bronze")
    many = [make_tenant(name, tier=tiers[number % 3]) for number, name in enumerate(names)]
    # A hundred of them are ramped or have limits of their own.
    many[:50] = [tenant.model_copy(update={"next_weight_percent": n}) for n, tenant in enumerate(many[:50])]
    many[50:100] = [
        tenant.model_copy(update={"limit": RateLimit(requests_per_second=n, burst=2 * n)})
        for n, tenant in enumerate(many[50:100], 1)
    ]
    files = render_files(many, SETTINGS)
    assert sum(map(len, files.values())) < 700_000
    validate(render_whole(many, SETTINGS), ENVOY)
    different = [make_tenant(f"tenant-{number}", timeout_ms=1_000 + number) for number in range(3000)]
    with pytest.raises(BadInput, match=r"configuration of 3000 takes .* about (1[0-9]{3}) of them"):
        render_files(different, SETTINGS)


def test_tenants_whose_routes_are_the_same_share_them() -> None:
    three = [make_tenant("acme"), make_tenant("globex"), make_tenant("initech", tier="bronze")]
    routes = json.loads(render_files(three, SETTINGS)["routes.json"])["resources"][0]
    assert [host["domains"] for host in routes["virtual_hosts"]] == [["acme", "globex"], ["initech"], ["*"]]


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.builds(
            make_tenant,
            st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True),
            tier=st.sampled_from(["gold", "silver", "bronze"]),
            timeout_ms=st.integers(10, 60_000),
            retries=st.integers(0, 5),
            next_weight_percent=st.integers(0, 100),
            limit=st.integers(1, 100_000).map(
                lambda rate: RateLimit(requests_per_second=rate, burst=rate * 2)
            ),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda tenant: tenant.id,
    ),
    st.integers(1, 50),
)
def test_envoy_accepts_any_valid_tenant_list(tenants: list[Tenant], replicas: int) -> None:
    validate(render_whole(tenants, SETTINGS.model_copy(update={"replicas": replicas})), ENVOY)


def test_same_input_renders_the_same_bytes() -> None:
    assert render_files(thousand(), SETTINGS) == render_files(thousand(), SETTINGS)


def test_address_is_left_to_kubernetes_to_expand() -> None:
    own = json.loads(container_args([make_tenant("acme")], SETTINGS)[-1])
    listeners = own["static_resources"]["listeners"]
    assert {entry["address"]["socket_address"]["address"] for entry in listeners} == {"$(POD_IP)"}
    assert all("$(POD_IP)" not in text for text in render_files([make_tenant("acme")], SETTINGS).values())


def test_gateways_refill_a_tenants_rate_together() -> None:
    tenants = [make_tenant("acme", limit=RateLimit(requests_per_second=50, burst=100))]
    files = render_files(tenants, GatewaySettings(stable=STABLE, replicas=3))
    bucket = json.loads(files["limits.json"])["resources"][0]["typed_config"]["descriptors"][0][
        "token_bucket"
    ]
    assert bucket == {"max_tokens": 34, "tokens_per_fill": 50, "fill_interval": "3s"}


def test_weight_without_a_next_version_names_the_tenant() -> None:
    with pytest.raises(
        BadInput, match="tenant acme: next_weight_percent is 5, but the gateway has no next version"
    ):
        render_files([make_tenant("acme", next_weight_percent=5)], GatewaySettings(stable=STABLE))


def test_no_tenant_and_a_tenant_twice_are_refused() -> None:
    with pytest.raises(BadInput, match="tenants: empty"):
        render_files([], SETTINGS)
    with pytest.raises(BadInput, match="acme is listed twice"):
        render_files([make_tenant("acme"), make_tenant("acme")], SETTINGS)
