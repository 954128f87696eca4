"""A stage's diagram is made of its network policies and of its grants."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from kilo.changes.diagram import mermaid, read_state, svg

STACK = "urn:pulumi:dev::kilo::pulumi:pulumi:Stack::kilo-dev"
NAME = "app.kubernetes.io/name"


def component(type_: str, name: str) -> dict[str, Any]:
    return {"type": type_, "urn": f"urn:pulumi:dev::kilo::{type_}::{name}", "parent": STACK}


def child(type_: str, name: str, parent: dict[str, Any], **fields: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:dev::kilo::{parent['type']}${type_}::{name}"
    return {"type": type_, "urn": urn, "parent": parent["urn"], **fields}


def policy(name: str, parent: dict[str, Any], **spec: Any) -> dict[str, Any]:
    selector = {"podSelector": {"matchLabels": {NAME: name}}}
    return child(
        "kubernetes:networking.k8s.io/v1:NetworkPolicy", name, parent, inputs={"spec": {**selector, **spec}}
    )


def peer(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {NAME: name}}}


def state() -> list[dict[str, Any]]:
    gateway = component("kilo:traffic:TenantGateway", "gateway")
    ingest = component("kilo:events:Ingest", "ingest")
    identity = component("kilo:identity:CloudIdentity", "ingest")
    keys = component("kilo:security:TenantKeys", "tenant-keys")
    role = child("aws:iam/role:Role", "ingest", identity)
    database = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 6432}]}
    dns = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53}]}
    return [
        {"type": "pulumi:pulumi:Stack", "urn": STACK, "outputs": {"database": {"port": 6432}}},
        *(gateway, ingest, identity, keys, role),
        policy("gateway", gateway, ingress=[{"ports": [{"port": 10080}]}], egress=[{"to": [peer("ingest")]}]),
        policy("ingest", ingest, ingress=[{"from": [peer("gateway")]}], egress=[dns, database]),
        child("aws:kms/key:Key", "tenant-keys-acme", keys, dependencies=[role["urn"]]),
    ]


def test_arrows_are_what_policies_and_grants_allow() -> None:
    diagram = read_state(state())
    assert diagram.connections == {("clients", "gateway"), ("gateway", "ingest"), ("ingest", "PostgreSQL")}
    assert diagram.accesses == {("ingest", "tenant-keys")}
    kinds = {name: (node.part, node.kind) for name, node in diagram.nodes.items()}
    assert kinds["ingest"] == ("Ingest", "process")
    assert kinds["tenant-keys"] == ("TenantKeys", "holds")
    assert kinds["clients"][1] == "outside"


def test_mermaid_has_each_node_and_arrow() -> None:
    text = mermaid(read_state(state()))
    assert text.startswith("flowchart LR\n")
    assert '  tenant_keys[("tenant-keys<br><small>TenantKeys</small>")]\n' in text
    assert "  gateway --> ingest\n" in text
    assert "  ingest -.-> tenant_keys\n" in text


def test_the_drawing_is_xml_and_nothing_lies_on_anything() -> None:
    root = ET.fromstring(svg(read_state(state())))
    boxes = [
        (
            float(box.attrib["x"]),
            float(box.attrib["y"]),
            float(box.attrib["width"]),
            float(box.attrib["height"]),
        )
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
        if "x" in box.attrib
    ]
    assert len(boxes) == 5 + 3  # and the legend's
    for index, (x1, y1, w1, h1) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[index + 1 :]:
            assert x1 + w1 <= x2 or x2 + w2 <= x1 or y1 + h1 <= y2 or y2 + h2 <= y1
