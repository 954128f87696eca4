"""Sets weights of features in ``Pulumi.<stage>.yaml``; every other character stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infra.tenants.stage_file import StageFile
from kilo.errors import BadInput
from kilo.tenancy import RampWeight, Tenant

_SCALAR = re.compile(r"""["']?[A-Za-z0-9]+["']?""")
Weights = Mapping[tuple[str, str], RampWeight]
"""By tenant and feature."""


class RampFile(StageFile):
    """A stage's file with its ramps."""

    @property
    def weights(self) -> dict[tuple[str, str], RampWeight]:
        """What the file says now, by tenant and feature."""
        return {
            (entry.id, feature): weight
            for entry in self.settings.tenants
            for feature, weight in entry.ramps.items()
        }

    def tenant(self, name: str) -> Tenant:
        """A tenant with what its tier says filled in.

        Raises:
            BadInput: there is no such tenant.
        """
        return self.settings.resolved_tenants[self._index(name)]

    def reread(self) -> None:
        """See what others have written since; raises BadInput as the constructor does."""
        self.__init__(self.path)

    def set_weights(self, weights: Weights) -> None:
        """Write weights, all of them or none.

        Raises:
            BadInput: there is no such tenant, or the file would not be right; nothing is written.
        """
        self.reread()
        lines = list(self._lines)
        # From the end of the file on, so that what is inserted moves no place that is still to be found.
        for (tenant, feature), weight in sorted(
            weights.items(), key=lambda item: self._index(item[0][0]), reverse=True
        ):
            if self.weights.get((tenant, feature)) != weight:
                self._lines = lines
                lines = self._with(tenant, feature, str(weight))
                self._entries = self._parse(lines)
        self._replace(lines)

    def _replace(self, lines: list[str]) -> None:
        before = len(self._lines)
        self._write(0, before, lines)

    def _parse(self, lines: list[str]) -> Any:
        from ruamel.yaml import YAML  # noqa: PLC0415  as the base class

        return YAML().load("".join(lines))["config"]["kilo:tenants"]

    def _with(self, tenant: str, feature: str, weight: str) -> list[str]:
        lines = list(self._lines)
        index = self._index(tenant)
        entry = self._entries[index]
        ramps = entry.get("ramps")
        if ramps is not None and feature in ramps:
            line, column = ramps.lc.value(feature)
            head, tail = lines[line][:column], lines[line][column:]
            if not _SCALAR.match(tail):
                place = f"{self.path.name}: kilo:tenants[{index}].ramps.{feature}"
                msg = f"{place}: not a plain value; write a number"
                raise BadInput(msg)
            lines[line] = head + _SCALAR.sub(weight, tail, count=1)
            return lines
        if ramps is not None and not ramps.fa.flow_style() and len(ramps):
            last = list(ramps)[-1]
            line, column = ramps.lc.key(last)
            return [*lines[: line + 1], f"{' ' * column}{feature}: {weight}\n", *lines[line + 1 :]]
        if ramps is not None:
            return _into_braces(lines, entry.lc.value("ramps"), f"{feature}: {weight}", empty=not len(ramps))
        end = self._end(index)
        if entry.fa.flow_style():
            return _into_braces(lines, (entry.lc.line, entry.lc.col), f"ramps: {{ {feature}: {weight} }}")
        line = f"{' ' * entry.lc.col}ramps: {{ {feature}: {weight} }}\n"
        if not lines[end - 1].endswith("\n"):
            lines[end - 1] += "\n"
        return [*lines[:end], line, *lines[end:]]


def _into_braces(lines: list[str], opening: tuple[int, int], text: str, *, empty: bool = False) -> list[str]:
    """Put ``text`` at the end of the flow mapping that opens at a line and column."""
    number, column = opening
    depth, quote = 0, ""
    while number < len(lines):
        line = lines[number]
        while column < len(line):
            character = line[column]
            if quote:
                quote = "" if character == quote else quote
            elif character in "\"'":
                quote = character
            elif character == "#" and (column == 0 or line[column - 1].isspace()):
                break
            elif character in "{[":
                depth += 1
            elif character in "}]":
                depth -= 1
                if depth == 0:
                    head, tail = line[:column].rstrip(), line[column:]
                    comma = "" if empty or head.endswith(("{", ",")) else ","
                    return [*lines[:number], f"{head}{comma} {text} {tail}", *lines[number + 1 :]]
            column += 1
        number, column = number + 1, 0
    msg = f"line {opening[0] + 1}: the mapping does not end"
    raise BadInput(msg)
