"""Draws a stage from its state: its processes, who may talk to whom, and which cloud resources they may use.

Nothing is drawn by hand. Processes and the ways between them are those of the network policies, so an arrow
is a connection that the cluster lets through; a dashed one is an identity's access to what a cloud keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

_NAME = "app.kubernetes.io/name"
_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
_STACK = "pulumi:pulumi:Stack"
_DATABASE = "PostgreSQL"
_CLIENTS = "clients"
_HOLDS = ("kilo:security:", "kilo:artifacts:MirroredRegistry", "kilo:storage:")
_IDENTITY = "kilo:identity:CloudIdentity"
_COLUMN, _ROW, _WIDTH, _HEIGHT, _MARGIN = 300, 62, 160, 46, 24
_LEGEND = 30
_DASHED = ' stroke-dasharray="5,4"'
_FILL = {"process": "#e8f0fe", "holds": "#fef3e0", "outside": "#eeeeee"}


@dataclass(frozen=True)
class Node:
    """A process, something that holds data, or what is outside of the program."""

    name: str
    part: str
    kind: str


@dataclass(frozen=True)
class Diagram:
    """Nodes by name, and edges as pairs of names: connections, and accesses by identity."""

    nodes: Mapping[str, Node]
    connections: frozenset[tuple[str, str]]
    accesses: frozenset[tuple[str, str]]


def read_state(resources: Sequence[Mapping[str, Any]]) -> Diagram:
    """The diagram of a stack's ``deployment.resources``, as ``pulumi stack export`` has them."""
    by_urn = {resource["urn"]: resource for resource in resources}
    (exported,) = (resource["outputs"] for resource in resources if resource["type"] == _STACK)
    database_port = exported["database"]["port"]
    nodes: dict[str, Node] = {}
    connections: set[tuple[str, str]] = set()
    for policy in (resource for resource in resources if resource["type"] == _POLICY):
        spec = policy["inputs"]["spec"]
        name = _selected(spec.get("podSelector") or {})
        if name is None:
            continue
        nodes[name] = Node(name, _kind_of(_component(policy, by_urn)), "process")
        for rule in spec.get("egress") or ():
            connections |= {(name, target) for target in _targets(rule, database_port)}
        for rule in spec.get("ingress") or ():
            connections |= {(source, name) for source in _sources(rule)}
    # Members of one cluster also talk among themselves, which is not drawn.
    connections = {(one, other) for one, other in connections if one != other}
    accesses = _accesses(resources, by_urn, nodes)
    for end in {end for edge in connections for end in edge} - nodes.keys():
        nodes[end] = Node(end, "outside the program", "outside")
    return Diagram(nodes, frozenset(connections), frozenset(accesses))


def mermaid(diagram: Diagram) -> str:
    """The diagram as Mermaid's flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
    lines = ["flowchart LR"]
    shapes = {"process": '["{}"]', "holds": '[("{}")]', "outside": '(["{}"])'}
    for node in sorted(diagram.nodes.values(), key=lambda node: node.name):
        text = f"{node.name}<br><small>{node.part}</small>"
        lines.append(f"  {_identifier(node.name)}{shapes[node.kind].format(text)}")
    for arrow, edges in (("-->", diagram.connections), ("-.->", diagram.accesses)):
        lines += [f"  {_identifier(one)} {arrow} {_identifier(other)}" for one, other in sorted(edges)]
    return "\n".join(lines) + "\n"


def svg(diagram: Diagram) -> str:
    """The diagram as SVG 1.1, laid out by who comes before whom."""
    places = _places(diagram)
    width = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    foot = max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    height = foot + _LEGEND
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="#555555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for style, edges in (("", diagram.connections), (_DASHED, diagram.accesses)):
        lines += [_curve(places[one], places[other], style) for one, other in sorted(edges)]
    for name, (x, y) in sorted(places.items()):
        node = diagram.nodes[name]
        middle = x + _WIDTH / 2
        lines += [
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7" fill="{_FILL[node.kind]}" '
            'stroke="#555555"/>',
            f'<text x="{middle}" y="{y + 20}" text-anchor="middle" font-size="14">{escape(name)}</text>',
            f'<text x="{middle}" y="{y + 36}" text-anchor="middle" font-size="10" fill="#555555">'
            f"{escape(node.part)}</text>",
        ]
    return "\n".join([*lines, *_legend(foot + _LEGEND // 2 - 6), "</svg>"]) + "\n"


def _legend(y: int) -> list[str]:
    lines: list[str] = []
    x = _MARGIN
    for kind, text in (("process", "process"), ("holds", "holds data"), ("outside", "outside the program")):
        lines += [
            f'<rect x="{x}" y="{y - 7}" width="20" height="14" rx="3" fill="{_FILL[kind]}" '
            'stroke="#555555"/>',
            _small(x + 28, y, text),
        ]
        x += 60 + 7 * len(text)
    for style, text in (("", "may connect to"), (_DASHED, "its identity may use")):
        lines += [
            f'<path d="M{x},{y} H{x + 40}" stroke="#555555" marker-end="url(#end)"{style}/>',
            _small(x + 48, y, text),
        ]
        x += 80 + 7 * len(text)
    return lines


def _small(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y + 4}" font-size="12" fill="#333333">{text}</text>'


def _selected(selector: Mapping[str, Any]) -> str | None:
    return (selector.get("matchLabels") or {}).get(_NAME)


def _targets(rule: Mapping[str, Any], database_port: int) -> list[str]:
    found = [name for peer in rule.get("to") or () if (name := _selected(peer.get("podSelector") or {}))]
    ports = {port.get("port") for port in rule.get("ports") or ()}
    if any("ipBlock" in peer for peer in rule.get("to") or ()) and database_port in ports:
        found.append(_DATABASE)
    return found


def _sources(rule: Mapping[str, Any]) -> list[str]:
    if not rule.get("from"):
        return [_CLIENTS]
    return [name for peer in rule["from"] if (name := _selected(peer.get("podSelector") or {}))]


def _accesses(
    resources: Sequence[Mapping[str, Any]], by_urn: Mapping[str, Mapping[str, Any]], nodes: dict[str, Node]
) -> set[tuple[str, str]]:
    """A grant is made of the identity and of the resource, whichever of the two it belongs to."""
    found: set[tuple[str, str]] = set()
    for resource in resources:
        parts = [_component(resource, by_urn)]
        parts += [
            _component(by_urn[urn], by_urn) for urn in resource.get("dependencies") or () if urn in by_urn
        ]
        known = [part for part in parts if part is not None]
        identities = {_name_of(part) for part in known if part["type"] == _IDENTITY}
        for part in known:
            if part["type"].startswith(_HOLDS):
                name = _name_of(part)
                nodes.setdefault(name, Node(name, _kind_of(part), "holds"))
                found |= {(identity, name) for identity in identities if identity in nodes}
    return found


def _component(
    resource: Mapping[str, Any], by_urn: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The component directly under the stack that a resource belongs to."""
    while (parent := by_urn.get(resource.get("parent") or "")) is not None:
        if parent["type"] == _STACK:
            return resource
        resource = parent
    return None


def _name_of(resource: Mapping[str, Any]) -> str:
    return resource["urn"].rpartition("::")[2]


def _kind_of(resource: Mapping[str, Any] | None) -> str:
    return resource["type"].rpartition(":")[2] if resource else ""


def _identifier(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def _places(diagram: Diagram) -> dict[str, tuple[int, int]]:
    edges = diagram.connections | diagram.accesses
    after: dict[str, list[str]] = defaultdict(list)
    for one, other in edges:
        after[one].append(other)
    # Columns are counted from what sends nothing on, at the right: few arrows then pass a column by.
    distance = dict.fromkeys(diagram.nodes, 0)
    for _ in diagram.nodes:  # as many rounds as nodes end any cycle
        for one, other in edges:
            distance[one] = min(max(distance[one], distance[other] + 1), len(diagram.nodes))
    columns: dict[int, list[str]] = defaultdict(list)
    for name in sorted(diagram.nodes, key=lambda name: (diagram.nodes[name].kind, name)):
        columns[distance[name]].append(name)
    order: dict[str, float] = {}
    for number in sorted(columns):
        columns[number].sort(key=lambda name: _average([order[other] for other in after[name]]))
        size = len(columns[number])
        order |= {name: (index + 0.5) / size for index, name in enumerate(columns[number])}
    tallest = max(map(len, columns.values()))
    return {
        name: (
            _MARGIN + position * _COLUMN,
            _MARGIN + round(order[name] * tallest * _ROW - _ROW / 2),
        )
        for position, number in enumerate(sorted(columns, reverse=True))
        for name in columns[number]
    }


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _curve(one: tuple[int, int], other: tuple[int, int], style: str) -> str:
    x1, y1 = one[0] + _WIDTH, one[1] + _HEIGHT / 2
    x2, y2 = other[0], other[1] + _HEIGHT / 2
    bend = max((x2 - x1) / 2, 30)
    path = f"M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"
    return f'<path d="{path}" fill="none" stroke="#555555" marker-end="url(#end)"{style}/>'
