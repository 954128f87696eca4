"""Features of a stage: what is refused, and what runs for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from infra.__main__ import deploy
from infra.configuration import parse
from kilo.errors import BadInput
from tests.components.recorder import record

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/kilo@sha256:" + "a" * 64


def stage(features: list[dict[str, Any]], ramps: dict[str, Any], **entry: Any) -> dict[str, Any]:
    config = YAML(typ="safe").load(ROOT / "Pulumi.dev.yaml")["config"]
    config["kilo:features"] = features
    for tenant in config["kilo:tenants"]:
        tenant.pop("ramps", None)
    config["kilo:tenants"][0].update({"ramps": ramps, **entry})
    return config


CHECKOUT = {"id": "checkout-v2", "path": "/v1/checkout", "next": {"image": IMAGE}}


@pytest.mark.parametrize(
    ("features", "ramps", "entry", "said"),
    [
        ([], {"checkout-v2": 5}, {}, r"tenants\[0\].ramps.checkout-v2: there is no feature 'checkout-v2'"),
        ([CHECKOUT, CHECKOUT], {}, {}, "feature 'checkout-v2' is listed 2 times"),
        ([CHECKOUT], {"checkout-v2": 101}, {}, r"tenants\[0\].ramps.checkout-v2"),
        ([CHECKOUT], {"checkout-v2": 2.5}, {}, r"tenants\[0\].ramps.checkout-v2"),
        ([CHECKOUT], {"checkout-v2": "dark"}, {}, r"tenants\[0\].ramps.checkout-v2"),
        (
            [{**CHECKOUT, "path": "/v1/"}],
            {},
            {},
            r"features\[0\].path: \"/v1/\" is not right; use a path such as",
        ),
        ([{**CHECKOUT, "next": {}}], {}, {}, "an image, or a service that is there"),
    ],
)
def test_a_mistake_names_the_place(
    features: list[dict[str, Any]], ramps: dict[str, Any], entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        parse(stage(features, ramps, **entry), "dev", "Pulumi.dev.yaml")


def test_one_ramp_of_a_tenant_at_a_time() -> None:
    config = stage([CHECKOUT], {"checkout-v2": 5}, next_weight_percent=5)
    config["kilo:ingest"] = {"next_image": IMAGE}
    with pytest.raises(BadInput, match="nobody could tell which version failed"):
        parse(config, "dev", "Pulumi.dev.yaml")


def test_next_versions_run_beside_the_service_or_are_reached_where_they_are() -> None:
    elsewhere = {"service": {"name": "checkout", "namespace": "shop", "port": 8080}}
    features = [
        {**CHECKOUT, "next": {"image": IMAGE, "arguments": ["serve", "--new"]}},
        {"id": "search", "header": {"name": "x-app", "value": "search"}, "next": elsewhere},
    ]
    settings = parse(stage(features, {"checkout-v2": "shadow", "search": 100}), "dev", "Pulumi.dev.yaml")
    recording = record(lambda: deploy(settings), stack="dev")
    pod = recording.one("kubernetes:apps/v1:Deployment", "ingest-checkout-v2").inputs["spec"]["template"][
        "spec"
    ]
    assert pod["containers"][0]["image"] == IMAGE
    assert pod["containers"][0]["args"][:2] == ["serve", "--new"]
    assert not [
        each
        for each in pod["containers"][0]["env"]
        if "valueFrom" in each and "secretKeyRef" in each["valueFrom"]
    ]
    files = recording.one("kubernetes:core/v1:ConfigMap", "gateway-envoy").inputs["data"]
    clusters = {one["name"]: one for one in json.loads(files["clusters.json"])["resources"]}
    assert {"next/search/gold", "next/checkout-v2/bronze", "shadow/checkout-v2/acme"} <= set(clusters)
    address = clusters["next/search/gold"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert address["address"]["socket_address"] == {
        "address": "checkout.shop.svc.cluster.local",
        "port_value": 8080,
    }
    policy = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "gateway").inputs["spec"][
        "egress"
    ]
    reached = {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], rule["ports"][0]["port"])
        for rule in policy
        for peer in rule["to"]
        if "podSelector" in peer
    }
    assert {("ingest", 10081), ("ingest-checkout-v2", 10081), ("checkout", 8080)} <= reached
