"""The environment and command line of a container, as the kubelet makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sandbox.cluster.node.lookup import Lookup, field_value, resource_value
from sandbox.cluster.objects import Object

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced where NAME is set; ``$$(NAME)`` stands for the text ``$(NAME)``."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def environment(pod: Object, container: Object, address: str, lookup: Lookup) -> dict[str, str]:
    """The variables that the container's specification sets, in its order.

    Raises:
        MissingReference: a ConfigMap, a Secret or a key is not there.
    """
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for field, read in (("configMapRef", lookup.config_map), ("secretRef", lookup.secret)):
            if reference := source.get(field):
                content = read(reference["name"], optional=bool(reference.get("optional")))
                variables |= {f"{prefix}{name}": value.decode() for name, value in content.items()}
    for variable in container.get("env") or ():
        value = _value(variable, variables, pod=pod, container=container, address=address, lookup=lookup)
        if value is not None:
            variables[variable["name"]] = value
    return variables


def _value(
    variable: Object,
    so_far: Mapping[str, str],
    *,
    pod: Object,
    container: Object,
    address: str,
    lookup: Lookup,
) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(variable.get("value") or "", so_far)
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], address)
    if reference := source.get("resourceFieldRef"):
        return resource_value(container, reference)
    kind = "Secret" if source.get("secretKeyRef") else "ConfigMap"
    content = lookup.key(kind, source.get("secretKeyRef") or source["configMapKeyRef"])
    return content.decode() if content is not None else None


def command_line(
    container: Object, entrypoint: tuple[str, ...], arguments: tuple[str, ...], variables: Mapping[str, str]
) -> list[str]:
    """Program and arguments: ``command`` replaces entry point and arguments of the image, ``args`` these."""
    command, args = container.get("command"), container.get("args")
    first = [expand(word, variables) for word in command] if command else list(entrypoint)
    if args is not None:
        return [*first, *(expand(word, variables) for word in args)]
    return first if command else [*first, *arguments]
