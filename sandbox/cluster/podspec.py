"""The rules of a pod's specification beyond fields and types."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from zoneinfo import available_timezones

from sandbox.cluster.errors import Cause
from sandbox.cluster.objects import Object
from sandbox.cluster.quantities import is_quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Since 1.30 any printable ASCII but '=': https://kubernetes.io/docs/tasks/inject-data-application/
_ENVIRONMENT_NAME = re.compile(r"[ -<>-~]+")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_FIELDS = re.compile(
    r"metadata\.(name|namespace|uid|labels(\['[^']+'\])?|annotations(\['[^']+'\])?)"
    r"|spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs)"
)
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")

Causes = Iterator[Cause]


def is_time_zone(name: object) -> bool:
    """Whether ``name`` is in the time zone database."""
    return name in available_timezones()


def port_number(value: object, path: str) -> Causes:
    """A TCP or UDP port."""
    if not isinstance(value, int) or not 1 <= value <= 65535:
        yield Cause(path, f"Invalid value: {json.dumps(value)}: must be between 1 and 65535, inclusive")


def port_reference(value: object, path: str) -> Causes:
    """A port by number or by a container port's name."""
    if isinstance(value, str):
        if not _PORT_NAME.fullmatch(value):
            reason = "must be a port name of at most 15 lower case letters, digits and '-'"
            yield Cause(path, f"Invalid value: {json.dumps(value)}: {reason}")
    elif value is not None:
        yield from port_number(value, path)


def check(spec: Object, path: str, restart: Collection[str], claims: Iterable[str] = ()) -> Causes:
    """All that is wrong with a pod's specification.

    Args:
        spec: of the pod.
        path: at which it stands.
        restart: the restart policies that are allowed.
        claims: names of the volumes that a StatefulSet adds to it.
    """
    policy = spec.get("restartPolicy", "Always")
    if policy not in restart:
        supported = ", ".join(f'"{name}"' for name in restart)
        reason = f'Unsupported value: "{policy}": supported values: {supported}'
        yield Cause(f"{path}.restartPolicy", reason, "FieldValueNotSupported")
    containers = spec.get("containers") or []
    if not containers:
        yield Cause(f"{path}.containers", "Required value", "FieldValueRequired")
    volumes = _names(spec.get("volumes") or []) | set(claims)
    yield from _duplicates([v.get("name", "") for v in spec.get("volumes") or []], f"{path}.volumes")
    for index, volume in enumerate(spec.get("volumes") or []):
        sources = [name for name in volume if name != "name" and volume[name] is not None]
        if len(sources) > 1:
            reason = f"Forbidden: may not specify more than 1 volume type ({', '.join(sorted(sources))})"
            yield Cause(f"{path}.volumes[{index}]", reason, "FieldValueForbidden")
    initial = spec.get("initContainers") or []
    yield from _duplicates([c.get("name", "") for c in [*initial, *containers]], f"{path}.containers")
    for field, listed in (("initContainers", initial), ("containers", containers)):
        for index, container in enumerate(listed):
            yield from _container(container, f"{path}.{field}[{index}]", volumes)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield Cause(f"{path}.terminationGracePeriodSeconds", f"Invalid value: {grace}: must be 0 or more")


def _names(listed: list[Any]) -> set[str]:
    return {item.get("name", "") for item in listed}


def _duplicates(names: list[str], path: str) -> Causes:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Cause(f"{path}[{index}].name", f'Duplicate value: "{name}"', "FieldValueDuplicate")


def _container(container: Object, path: str, volumes: set[str]) -> Causes:
    name = container.get("name", "")
    if not _LABEL.fullmatch(name):
        yield Cause(f"{path}.name", f"Invalid value: {json.dumps(name)}: must be a lowercase RFC 1123 label")
    if not container.get("image"):
        yield Cause(f"{path}.image", "Required value", "FieldValueRequired")
    yield from _ports(container, path)
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, f"{path}.env[{index}]")
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        place = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield Cause(f"{place}.name", f'Not found: "{mount.get("name")}"', "FieldValueNotFound")
        where = mount.get("mountPath") or ""
        if not where.startswith("/"):
            yield Cause(f"{place}.mountPath", f'Invalid value: "{where}": must be an absolute path')
        if where in paths:
            reason = f'Invalid value: "{where}": must be unique'
            yield Cause(f"{place}.mountPath", reason)
        paths.add(where)
    yield from _resources(container.get("resources") or {}, f"{path}.resources")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if container.get(probe):
            yield from _probe(container[probe], f"{path}.{probe}", container)


def _ports(container: Object, path: str) -> Causes:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for index, port in enumerate(container.get("ports") or ()):
        place = f"{path}.ports[{index}]"
        yield from port_number(port.get("containerPort"), f"{place}.containerPort")
        if port.get("name"):
            yield from port_reference(port["name"], f"{place}.name")
            if port["name"] in names:
                yield Cause(f"{place}.name", f'Duplicate value: "{port["name"]}"', "FieldValueDuplicate")
            names.add(port["name"])
        pair = (port.get("containerPort", 0), port.get("protocol", "TCP"))
        if pair in numbers:
            yield Cause(f"{place}.containerPort", f"Duplicate value: {pair[0]}", "FieldValueDuplicate")
        numbers.add(pair)


def _variable(variable: Object, path: str) -> Causes:
    name = variable.get("name") or ""
    if not _ENVIRONMENT_NAME.fullmatch(name):
        reason = "a valid environment variable name must consist of printable ASCII characters other than '='"
        yield Cause(f"{path}.name", f"Invalid value: {json.dumps(name)}: {reason}")
    source = variable.get("valueFrom")
    if not source:
        return
    if variable.get("value"):
        reason = "Invalid value: may not be specified when `value` is not empty"
        yield Cause(f"{path}.valueFrom", reason)
    kinds = [kind for kind in source if source[kind] is not None]
    if len(kinds) != 1:
        yield Cause(f"{path}.valueFrom", "Invalid value: must specify exactly one source")
    field = (source.get("fieldRef") or {}).get("fieldPath")
    if field is not None and not _FIELDS.fullmatch(field):
        yield Cause(
            f"{path}.valueFrom.fieldRef.fieldPath", f'Invalid value: "{field}": error converting fieldPath'
        )


def _resources(resources: Object, path: str) -> Causes:
    for part in ("limits", "requests"):
        for name, value in (resources.get(part) or {}).items():
            if not is_quantity(value):
                reason = "quantities must match a number with a suffix such as 250m, 128Mi or 1e3"
                yield Cause(f"{path}.{part}.{name}", f"Invalid value: {json.dumps(value)}: {reason}")


def _probe(probe: Object, path: str, container: Object) -> Causes:
    handlers = [name for name in _HANDLERS if probe.get(name) is not None]
    if len(handlers) != 1:
        reason = f"must specify exactly one handler type ({', '.join(_HANDLERS)})"
        yield Cause(path, f"Required value: {reason}", "FieldValueRequired")
        return
    handler = probe[handlers[0]]
    if handlers[0] in {"httpGet", "tcpSocket"}:
        port = handler.get("port")
        yield from port_reference(port, f"{path}.{handlers[0]}.port")
        named = {item.get("name") for item in container.get("ports") or ()}
        if isinstance(port, str) and port not in named:
            # The API server lets it pass, and the kubelet then never finds the pod ready.
            yield Cause(f"{path}.{handlers[0]}.port", f'Not found: no container port is named "{port}"')
    for name in ("periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"):
        if probe.get(name) is not None and probe[name] < 1:
            yield Cause(f"{path}.{name}", f"Invalid value: {probe[name]}: must be greater than or equal to 1")
    if "readinessProbe" not in path and probe.get("successThreshold") not in {None, 1}:
        yield Cause(f"{path}.successThreshold", "Invalid value: must be 1")
