"""Carries a stage's file out through the Pulumi engine, on the gateway's ConfigMap alone.

A step forward is planned first (``preview --save-plan``), and the plan is judged: it may change nothing but
the ConfigMap, and in that nothing but the routes and clusters of the tenants that step. What else somebody
has written into the file without deploying it does not ride along. Then the plan is carried out, if the state
is still the one that it was made from: the engine itself does not look. A revert is not planned, to be fast.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from kilo.engine import EngineSession, NotDeployed
from kilo.environment import GATEWAY_ALONE_VARIABLE
from kilo.tenancy import RampWeight
from kilo.traffic.flags_file import FLAGS_FILE
from kilo.traffic.xds import METADATA

_CONFIG_MAP = "kilo:traffic:TenantGateway$kubernetes:core/v1:ConfigMap"
_ROUTES, _CLUSTERS = "routes.json", "clusters.json"
Changes = Mapping[tuple[str, str], RampWeight]


class PulumiEngine:
    """The engine on one stage.

    Args:
        stage: the stack.
        project: the folder of ``Pulumi.yaml``.
        config_map: the resource's name.
    """

    def __init__(self, stage: str, project: Path, config_map: str = "gateway-envoy") -> None:
        self._session = EngineSession(stage, project)
        self._urn = f"urn:pulumi:{stage}::kilo::{_CONFIG_MAP}::{config_map}"

    async def deploy(self, changes: Changes, *, urgent: bool) -> None:
        """Bring what the file says to the gateways.

        Raises:
            NotDeployed: the engine refuses or is locked, or the plan holds more than ``changes``.
            Unreachable: there is no engine.
        """
        on = ["--stack", self._session.stage, "--target", self._urn]
        up = ["up", *on, "--yes", "--skip-preview", "--suppress-outputs"]
        with tempfile.TemporaryDirectory(prefix="kilo-ramp-") as folder:
            state = await self._session.state()
            outputs, plan = Path(folder, "outputs.json"), Path(folder, "plan.json")
            await asyncio.to_thread(outputs.write_text, json.dumps(outputs_in(json.loads(state))))
            alone = {GATEWAY_ALONE_VARIABLE: str(outputs)}
            if urgent:
                await self._session.run(up, alone)
                return
            await self._session.run(["preview", *on, "--save-plan", str(plan)], alone)
            planned = json.loads(await asyncio.to_thread(plan.read_bytes))
            if not judge(planned, json.loads(state), self._urn, changes):
                return
            if sha256(await self._session.state()).digest() != sha256(state).digest():
                msg = "another deployment has changed the state since the plan was made; it is planned again"
                raise NotDeployed(msg)
            await self._session.run([*up, "--plan", str(plan)], alone)


def outputs_in(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stack's outputs, none of which is a secret.

    Raises:
        NotDeployed: the stage was never deployed.
    """
    resources = state["deployment"].get("resources") or []
    stack = next((each for each in resources if each.get("type") == "pulumi:pulumi:Stack"), {})
    if not stack.get("outputs"):
        msg = "the stage was never deployed; deploy it first: pulumi up"
        raise NotDeployed(msg)
    return stack["outputs"]


def judge(plan: Mapping[str, Any], state: Mapping[str, Any], urn: str, changes: Changes) -> bool:
    """Whether the plan has something to do; what it does must be ``changes`` alone.

    Args:
        plan: of ``preview --save-plan``.
        state: of ``stack export``, from which the plan was made.
        urn: of the ConfigMap.
        changes: the weights that step.

    Raises:
        NotDeployed: the plan would change something else.
    """
    resources = plan["resourcePlans"]
    others = [other for other, each in resources.items() if other != urn and set(each["steps"]) - {"same"}]
    if others:
        msg = f"the plan would change {others[0]} too; deploy that first: pulumi up"
        raise NotDeployed(msg)
    if urn not in resources or set(resources[urn]["steps"]) <= {"same"}:
        return False
    if set(resources[urn]["steps"]) != {"update"}:
        what = " and ".join(resources[urn]["steps"])
        msg = f"the plan would {what} the gateway's files; deploy that first: pulumi up"
        raise NotDeployed(msg)
    difference = resources[urn]["goal"]["inputDiff"]
    before = next(each["inputs"] for each in state["deployment"]["resources"] if each["urn"] == urn)
    after: Mapping[str, Any] = {**before["data"], **difference.get("updates", {}).get("data", {})}
    if set(difference.get("updates", {})) - {"data"} or difference.get("adds") or difference.get("deletes"):
        msg = "the plan would change more of the ConfigMap than its files; deploy that first: pulumi up"
        raise NotDeployed(msg)
    tenants = {tenant for tenant, _ in changes}
    for name in sorted({*before["data"], *after}):
        if _without(name, before["data"].get(name), tenants) != _without(name, after.get(name), tenants):
            msg = (
                f"{name} would change for others than {', '.join(sorted(tenants))}: the stage's file has "
                "what was never deployed; deploy that first: pulumi up"
            )
            raise NotDeployed(msg)
    return True


def _without(name: str, text: str | None, tenants: set[str]) -> Any:
    """A file without what may change in it: routes and flags of the tenants, and clusters of their copies."""
    if text is None or name not in {_ROUTES, _CLUSTERS, FLAGS_FILE}:
        return text
    content = json.loads(text)
    if name == FLAGS_FILE:
        weights = content["features"].items()
        others = {
            feature: {tenant: weight for tenant, weight in of.items() if tenant not in tenants}
            for feature, of in weights
        }
        return {**content, "features": others}
    if name == _CLUSTERS:
        return [
            each
            for each in content["resources"]
            if not (each["name"].startswith("shadow/") and each["name"].rpartition("/")[2] in tenants)
        ]
    (routes,) = content["resources"]
    # Which tenants share a virtual host changes with every weight: what counts is what each one has.
    return {
        "rest": {name: value for name, value in routes.items() if name != "virtual_hosts"},
        **{
            domain: [route for route in host["routes"] if domain not in tenants or not _is_features(route)]
            for host in routes["virtual_hosts"]
            for domain in host["domains"]
        },
    }


def _is_features(route: Mapping[str, Any]) -> bool:
    return "feature" in route.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
