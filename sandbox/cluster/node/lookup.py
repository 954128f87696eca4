"""The values that a pod's specification refers to: ConfigMaps, Secrets, fields of the pod itself."""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal
from typing import Any

from sandbox.cluster.objects import Key, Object
from sandbox.cluster.quantities import quantity
from sandbox.cluster.store import Store

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class MissingReference(Exception):
    """What the pod refers to is not there yet."""


class Lookup:
    """Values for the pods of one namespace."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    def config_map(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """A ConfigMap's content.

        Raises:
            MissingReference: there is none, and it is not optional.
        """
        obj = self._find("ConfigMap", name, optional=optional)
        texts = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return texts | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}

    def secret(self, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """A Secret's content.

        Raises:
            MissingReference: there is none, and it is not optional.
        """
        obj = self._find("Secret", name, optional=optional)
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}

    def _find(self, kind: str, name: str, *, optional: bool) -> Object:
        found = self._store.get(Key("v1", kind, self._namespace, name))
        if found is None and not optional:
            msg = f'{kind.lower()} "{name}" not found'
            raise MissingReference(msg)
        return found or {}

    def key(self, kind: str, reference: Object) -> bytes | None:
        """One key of a ConfigMap or Secret; None when it is optional and not there.

        Raises:
            MissingReference: it is not there, and not optional.
        """
        optional = bool(reference.get("optional"))
        read = self.secret if kind == "Secret" else self.config_map
        content = read(reference["name"], optional=optional)
        if reference["key"] not in content and not optional:
            msg = f"couldn't find key {reference['key']} in {kind} {self._namespace}/{reference['name']}"
            raise MissingReference(msg)
        return content.get(reference["key"])


def field_value(pod: Object, path: str, address: str) -> str:
    """A field of the pod, as the downward API gives it."""
    if match := _SUBSCRIPT.fullmatch(path):
        return (pod["metadata"].get(match[1]) or {}).get(match[2], "")
    known = {
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
        "spec.nodeName": "sandbox",
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
    }
    if path in known:
        return known[path]
    value = pod["metadata"].get(path.partition(".")[2], "")
    if isinstance(value, dict):
        return "\n".join(f'{name}="{item}"' for name, item in sorted(value.items()))
    return str(value)


def resource_value(container: Object, reference: Object) -> str:
    """A container's limit or request in units of the divisor, rounded up."""
    part, _, name = reference["resource"].partition(".")
    value: Any = ((container.get("resources") or {}).get(part) or {}).get(name, "0")
    divisor = quantity(str(reference.get("divisor") or "1")) or Decimal(1)
    return str(math.ceil(quantity(str(value)) / divisor))
