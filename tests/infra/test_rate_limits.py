"""A stage that deploys the rate limit service: its gateways ask it, and a stage without shows none of it."""

from __future__ import annotations

import json

import kubernetes_validate

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from kilo.traffic.features import NextService
from tests.components.recorder import Recording, record
from tests.infra.programs import ROOT
from tests.infra.programs import program as as_it_is
from tests.infra.test_manifests import KUBERNETES

ELSEWHERE = NextService(name="ratelimit", namespace="limits", port=8081)


def program(service: NextService | str) -> Recording:
    settings = read_stage_file(ROOT / "Pulumi.stage.yaml")
    gateway = settings.gateway.model_copy(update={"rate_limit_service": service})
    return record(lambda: deploy(settings.model_copy(update={"gateway": gateway})), stack="stage")


def reached(recording: Recording) -> list[dict[str, object]]:
    policy = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "gateway").inputs["spec"]
    return [rule["to"][0] for rule in policy["egress"] if rule["ports"][0]["port"] == 8081]


def gateway_arguments(recording: Recording) -> str:
    spec = recording.one("kubernetes:apps/v1:Deployment", "gateway").inputs["spec"]["template"]["spec"]
    (envoy,) = (each for each in spec["containers"] if each["name"] == "gateway")
    return json.dumps(envoy["args"])


def test_gateways_ask_the_one_that_is_deployed_with_them() -> None:
    recording = program("deployed")
    assert f"rate-limits.{read_stage_file(ROOT / 'Pulumi.stage.yaml').namespace}.svc.cluster.local" in (
        gateway_arguments(recording)
    )
    (peer,) = reached(recording)
    assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "rate-limits"}}


def test_what_is_deployed_is_valid_strictly() -> None:
    known = {resource.urn for resource in as_it_is("stage").resources}
    added = [resource for resource in program("deployed").resources if resource.urn not in known]
    assert len([each for each in added if each.custom]) == 12
    for resource in added:
        if resource.custom:
            kubernetes_validate.validate(resource.inputs, KUBERNETES, strict=True)


def test_one_that_is_there_is_asked_where_it_is_and_none_is_deployed() -> None:
    recording = program(ELSEWHERE)
    assert ELSEWHERE.host in gateway_arguments(recording)
    (peer,) = reached(recording)
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "limits"}}
    assert not [resource for resource in recording.resources if resource.name.startswith("rate-limits")]


def test_without_it_a_stage_has_nothing_of_it() -> None:
    recording = as_it_is("stage")
    assert not [resource for resource in recording.resources if resource.name.startswith("rate-limits")]
    assert reached(recording) == []
