"""Sets what a promotion changes in ``Pulumi.<stage>.yaml``; every other character stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from infra.configuration import PROJECT
from infra.ramps.stage_file import RampFile
from infra.stage_text import write_checked
from kilo.errors import BadInput
from kilo.promotion.record import Value
from kilo.tenancy import RampWeight

_RAMP = "tenants"
"""``tenants.TENANT.ramps.FEATURE`` is a weight; all other names are paths below ``kilo:``."""


class PromotionFile(RampFile):
    """A stage's file with the settings that promotions change."""

    def value(self, setting: str) -> Value:
        """What the file says of a setting, its default where it says nothing.

        Raises:
            BadInput: there is no such setting.
        """
        if setting.startswith(f"{_RAMP}."):
            return self.weights.get(_weight_of(setting), 0)
        found: Any = self.settings
        for name in setting.split("."):
            found = getattr(found, name, None)
        if not isinstance(found, (bool, int, str, tuple)):
            msg = f"{self.path.name}: {PROJECT}:{setting}: there is no such setting"
            raise BadInput(msg)
        return found

    def set(self, wanted: Mapping[str, Value]) -> None:
        """Write settings; those that are so already are left as they stand.

        Raises:
            BadInput: the file would not be right; nothing is written but weights that came before.
        """
        self.reread()
        weights: dict[tuple[str, str], RampWeight] = {}
        text = before = self.path.read_text(encoding="utf-8")
        for setting, value in wanted.items():
            if self.value(setting) == value:
                continue
            if setting.startswith(f"{_RAMP}."):
                weights[_weight_of(setting)] = value if value == "shadow" else int(str(value))  # type: ignore[assignment]
            else:
                text = _with(text, setting, value)
        if text != before:
            write_checked(self.path, text)
            self.reread()
        if weights:
            self.set_weights(weights)


def _weight_of(setting: str) -> tuple[str, str]:
    _, tenant, _, feature = setting.split(".")
    return tenant, feature


def _with(text: str, setting: str, value: Value) -> str:
    """The text of a file in which a setting has a value."""
    first, *rest = setting.split(".")
    path = [f"{PROJECT}:{first}", *rest]
    node: Any = _member(YAML().compose(text), "config")
    for depth, name in enumerate(path):
        found = _member(node, name)
        if found is None:
            return _inserted(text, node, name, _flow(path[depth + 1 :], value))
        node = found
    start, end = node.start_mark.index, _end(node)
    return f"{text[:start]}{'' if start < end else ' '}{_flow([], value)}{text[end:]}"


def _member(mapping: Any, name: str) -> Any:
    for key, node in mapping.value:
        if key.value == name:
            return node
    return None


def _inserted(text: str, mapping: Any, name: str, value: str) -> str:
    if mapping.flow_style:
        at = mapping.end_mark.index - 1
        comma = "," if mapping.value else ""
        return f"{text[:at].rstrip()}{comma} {name}: {value} {text[at:]}"
    mark = mapping.value[0][0].start_mark
    return f"{text[: mark.index]}{name}: {value}\n{' ' * mark.column}{text[mark.index :]}"


def _end(node: Any) -> int:
    """Where a node's text ends; that of a block ends with its last member, not with the comments after it."""
    if not isinstance(node.value, list) or node.flow_style or not node.value:
        return node.end_mark.index
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(path: list[str], value: Value) -> str:
    if path:
        return f"{{ {path[0]}: {_flow(path[1:], value)} }}"
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    # JSON's strings are YAML's.
    return json.dumps(value) if isinstance(value, str) else f"[{', '.join(map(str, value))}]"
