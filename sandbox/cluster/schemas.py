"""Strict validation against the schemas of a current Kubernetes and of custom resources.

An unknown field is an error with its path: the API server's strict field validation, with
``kubectl``'s and Pulumi's default of pruning in silence left out on purpose. The schemas of built-in kinds
are those that ``kubernetes-validate`` carries, which are generated from the API's own OpenAPI document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource

from sandbox.cluster.errors import Cause, bad_request, invalid
from sandbox.cluster.kinds import Kind
from sandbox.cluster.objects import Object

KUBERNETES_VERSION = "1.37"
_FOLDER = f"kubernetes-json-schema/v{KUBERNETES_VERSION}.0-local-strict"
_BASE = "https://kubernetes.io/api/_definitions.json"
_METADATA = {"$ref": f"{_BASE}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}


@cache
def _read(name: str) -> Any:
    return json.loads(resources.files("kubernetes_validate").joinpath(_FOLDER, name).read_bytes())


@cache
def _registry() -> Registry[Any]:
    return Registry().with_resource(_BASE, Resource.from_contents(_read("_definitions.json")))


@cache
def _built_in(kind: Kind) -> Draft202012Validator:
    group, _, version = kind.api_version.rpartition("/")
    suffix = f"{group.partition('.')[0]}-{version}" if group else version
    return Draft202012Validator(_read(f"{kind.kind.lower()}-{suffix}.json"), registry=_registry())


class _Loader(yaml.CSafeLoader):
    """Takes a lone ``=``, as it stands among the matchers' operators, for text, as YAML 1.2 does."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


class Schemas:
    """Validators of every kind; custom ones from a folder of CustomResourceDefinitions."""

    def __init__(self, definitions: Path | None = None) -> None:
        self._custom: dict[Kind, dict[str, Any]] = {}
        self._validators: dict[Kind, Draft202012Validator] = {}
        for path in sorted(definitions.glob("*.yaml")) if definitions else ():
            for document in yaml.load_all(path.read_bytes(), _Loader):
                self._custom.update(_definition(document))

    @property
    def custom_kinds(self) -> Iterable[Kind]:
        """The kinds of the CustomResourceDefinitions."""
        return self._custom.keys()

    def validate(self, kind: Kind, obj: Object) -> None:
        """Check an object's fields and their types.

        Raises:
            ApiError: 400 for unknown fields, as strict decoding answers; 422 for wrong values.
        """
        unknown: list[str] = []
        causes: list[Cause] = []
        for error in self._validator(kind).iter_errors(obj):
            _collect(error, unknown, causes)
        name = str((obj.get("metadata") or {}).get("name", ""))
        if unknown:
            listed = ", ".join(f'unknown field "{path}"' for path in sorted(set(unknown)))
            message = f'{kind.kind} "{name}" in version "{kind.api_version}" cannot be handled: '
            # Wrong values the API server would name at the next try.
            wrong = "".join(f"; {cause.field}: {cause.message}" for cause in causes)
            msg = f"{message}strict decoding error: {listed}{wrong}"
            raise bad_request(msg)
        if causes:
            raise invalid(kind.kind, name, causes)

    def _validator(self, kind: Kind) -> Draft202012Validator:
        if kind not in self._custom:
            return _built_in(kind)
        if kind not in self._validators:
            self._validators[kind] = Draft202012Validator(_strict(self._custom[kind]), registry=_registry())
        return self._validators[kind]


def _definition(document: Any) -> Iterator[tuple[Kind, dict[str, Any]]]:
    if not document or document.get("kind") != "CustomResourceDefinition":
        return
    spec = document["spec"]
    for version in spec["versions"]:
        if version["served"]:
            names = spec["names"]
            namespaced = spec["scope"] == "Namespaced"
            kind = Kind(f"{spec['group']}/{version['name']}", names["kind"], names["plural"], namespaced)
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"]["metadata"] = _METADATA
            yield kind, schema


def _strict(schema: Any) -> Any:
    """A structural schema of OpenAPI v3 as a JSON Schema that refuses unknown fields."""
    if not isinstance(schema, dict):
        return [_strict(item) for item in schema] if isinstance(schema, list) else schema
    if "$ref" in schema:
        return schema
    made = {
        name: {key: _strict(value) for key, value in part.items()} if name == "properties" else _strict(part)
        for name, part in schema.items()
        if not name.startswith("x-kubernetes-")
        and name not in {"description", "default", "format", "nullable"}
    }
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _collect(error: ValidationError, unknown: list[str], causes: list[Cause]) -> None:
    path = field_path(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
        unknown.extend(_join(path, name) for name in error.instance if name not in known)
    elif error.validator == "required" and isinstance(error.validator_value, list):
        missing = [name for name in error.validator_value if name not in error.instance]
        causes.extend(Cause(_join(path, name), "Required value", "FieldValueRequired") for name in missing)
    elif error.context:
        for inner in error.context:
            _collect(inner, unknown, causes)
    else:
        causes.append(Cause(path, f"Invalid value: {error.message}"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def field_path(parts: Iterable[str | int]) -> str:
    """A path as the API server writes it: ``spec.containers[0].image``."""
    path = ""
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    return path
