"""What a plan may hold that a step is carried out by, and what the engine says when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kilo.engine import NotDeployed
from kilo.tenancy import RampWeight, Tenant
from kilo.traffic.envoy import render_files
from kilo.traffic.ramps.engine import PulumiEngine, judge
from kilo.traffic.settings import GatewayFeature, GatewaySettings, Upstream
from tests.noting_engine import calls, noting_engine
from tests.runtime.traffic.support import make_tenant

URN = "urn:pulumi:dev::kilo::kilo:traffic:TenantGateway$kubernetes:core/v1:ConfigMap::gateway-envoy"
SERVICE = Upstream(host="ingest.kilo.svc.cluster.local", port=10081)
SETTINGS = GatewaySettings(
    stable=SERVICE, features=tuple(GatewayFeature(id=name, next=SERVICE) for name in ("search", "pay"))
)
CHANGES: dict[tuple[str, str], RampWeight] = {("acme", "search"): 5}


def files(acme: Tenant, *others: Tenant) -> dict[str, str]:
    return render_files([acme, *(others or (make_tenant("globex"),))], SETTINGS)


def state(data: dict[str, str]) -> dict[str, Any]:
    return {
        "deployment": {"resources": [STACK, {"urn": "urn:other"}, {"urn": URN, "inputs": {"data": data}}]}
    }


STACK = {"urn": "urn:stack", "type": "pulumi:pulumi:Stack", "outputs": {"stage": "dev"}}


def plan(before: dict[str, str], after: dict[str, str], *steps: str, **more: Any) -> dict[str, Any]:
    changed = {name: text for name, text in after.items() if before.get(name) != text}
    difference = {"updates": {"data": changed, **more}}
    return {
        "resourcePlans": {
            "urn:other": {"steps": ["same"]},
            URN: {"goal": {"inputDiff": difference}, "steps": list(steps) or ["update"]},
        }
    }


BEFORE = files(make_tenant("acme"))


@pytest.mark.parametrize("weight", [0, 5, 100, "shadow"])
def test_the_tenants_own_weights_may_change(weight: RampWeight) -> None:
    after = files(make_tenant("acme", ramps={"search": weight}))
    assert judge(plan(BEFORE, after), state(BEFORE), URN, {("acme", "search"): weight})
    assert judge(plan(after, BEFORE), state(after), URN, CHANGES)


def test_nothing_to_do_is_no_deployment() -> None:
    assert not judge(plan(BEFORE, BEFORE, "same"), state(BEFORE), URN, CHANGES)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (
            files(make_tenant("acme", ramps={"search": 5}, timeout_ms=9_000)),
            "routes.json would change for others",
        ),
        (files(make_tenant("acme"), make_tenant("globex", ramps={"search": 5})), "flags.json would change"),
        (files(make_tenant("acme"), make_tenant("globex", tier="bronze")), "clusters.json would change"),
        (files(make_tenant("acme"), make_tenant("globex"), make_tenant("new")), "would change for others"),
    ],
    ids=["the tenant's timeout", "another's weight", "another's tier", "another tenant"],
)
def test_what_others_wrote_does_not_ride_along(after: dict[str, str], said: str) -> None:
    with pytest.raises(NotDeployed, match=said):
        judge(plan(BEFORE, after), state(BEFORE), URN, CHANGES)


def test_a_plan_for_more_than_the_files_is_refused() -> None:
    after = files(make_tenant("acme", ramps={"search": 5}))
    with pytest.raises(NotDeployed, match="more of the ConfigMap than its files"):
        judge(plan(BEFORE, after, metadata={}), state(BEFORE), URN, CHANGES)
    with pytest.raises(NotDeployed, match="would delete and create the gateway's files"):
        judge(plan(BEFORE, after, "delete", "create"), state(BEFORE), URN, CHANGES)
    more = plan(BEFORE, after)
    more["resourcePlans"]["urn:other"]["steps"] = ["update"]
    with pytest.raises(NotDeployed, match="urn:other too"):
        judge(more, state(BEFORE), URN, CHANGES)


ALONE = 'if [ "$1" != stack ]; then grep -q dev "$KILO_GATEWAY_ALONE" || exit 1; fi'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    after = files(make_tenant("acme", ramps={"search": 5}))
    planned = plan(BEFORE, after)
    return noting_engine(tmp_path, monkeypatch, state=state(BEFORE), plan=planned, first=ALONE)


async def test_a_step_is_planned_and_carried_out_by_its_plan_on_the_gateway_alone(project: Path) -> None:
    await PulumiEngine("dev", project).deploy(CHANGES, urgent=False)
    assert calls(project) == ["stack", "preview", "stack", "up"]
    done = (project / "calls").read_text().splitlines()[-1]
    assert f"--target {URN}" in done
    assert "--plan " in done


async def test_a_revert_is_carried_out_at_once(project: Path) -> None:
    await PulumiEngine("dev", project).deploy(CHANGES, urgent=True)
    assert calls(project) == ["stack", "up"]


async def test_a_state_that_moved_since_the_plan_is_planned_again(project: Path) -> None:
    (project / "moves").touch()
    with pytest.raises(NotDeployed, match="another deployment has changed the state"):
        await PulumiEngine("dev", project).deploy(CHANGES, urgent=False)
    assert "up" not in calls(project)


async def test_a_locked_state_is_said(project: Path) -> None:
    (project / "locked").touch()
    with pytest.raises(NotDeployed, match="another deployment has locked the state"):
        await PulumiEngine("dev", project).deploy(CHANGES, urgent=False)
