"""What a provider of the sandbox is made of: resource types, functions, and the engine's rules around them.

A :class:`ResourceType` says how one type is created, read, changed and deleted on a real server.
Everything else is the same for all and lies here: properties are checked against the SDK's own
schema, names are generated as official providers generate them, a preview calls nothing, inputs are
read back so that drift shows as a change, and a resource that is gone is reported as gone.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sandbox.providers import schema
from sandbox.providers.diff import same_document
from sandbox.providers.schema import Failure
from sandbox.providers.values import UNKNOWN, Properties, Secret, Value, has_unknown

DEFAULTED = "__defaults"
"""Where official providers list the inputs that they, not the program, chose."""


@dataclass(frozen=True)
class Autoname:
    """How a name that the program leaves out is made: the resource's name, a separator, 7 hex digits.

    ``maximum`` counts characters; ``lower`` and ``prefix`` follow the cloud's own rules for the name.
    """

    property: str = "name"
    maximum: int = 255
    separator: str = "-"
    prefix: str = ""
    suffix: str = ""
    lower: bool = False

    def generate(self, resource_name: str, seed: bytes) -> str:
        """A fresh name, the same for the same ``seed``."""
        digits = f"{random.Random(seed or None).getrandbits(28):07x}"  # noqa: S311 - a name, no secret
        room = self.maximum - len(self.prefix) - len(self.separator) - len(digits) - len(self.suffix)
        stem = resource_name.lower() if self.lower else resource_name
        return f"{self.prefix}{stem[:room]}{self.separator}{digits}{self.suffix}"


class ResourceType(ABC):
    """One resource type on a real server.

    Values passed in are plain: no unknowns, no secrets. An error raised by the server's client may
    pass through; the provider turns it into one line that names the resource.
    """

    type_name: ClassVar[str]
    """The type, as in ``aws:kms/key:Key``."""
    immutable: ClassVar[Collection[str]] = ()
    """Inputs whose change takes a new resource."""
    autoname: ClassVar[Autoname | None] = None
    documents: ClassVar[Collection[str]] = ()
    """Inputs that hold JSON text."""
    defaults: ClassVar[Mapping[str, Value]] = {}
    """Inputs that the official provider fills in when the program leaves them out."""
    server_chosen: ClassVar[Collection[str]] = ()
    """Inputs that the cloud fills in; what it chose is no drift."""
    unsupported: ClassVar[Collection[str]] = ()
    """Inputs of the official type that the sandbox can't carry out, and so refuses."""
    secret_outputs: ClassVar[Collection[str]] = ()
    delete_before_replace: ClassVar[bool] = False
    extra_inputs: ClassVar[Mapping[str, Any]] = {}
    """Inputs that the SDK's Args class does not list."""

    def keeps_name(self, old: Properties, new: Properties) -> bool:
        """Whether a replacement would have the name of what it replaces, which then must go first."""
        if self.autoname is None or self.autoname.property in new.get(DEFAULTED, ()):
            return False
        return old.get(self.autoname.property) == new.get(self.autoname.property)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Rules of the cloud's API beyond names and types; unknowns may lie anywhere in ``inputs``."""
        del inputs
        return ()

    @abstractmethod
    def create(self, inputs: Properties) -> str:
        """Create it and answer with its id."""

    @abstractmethod
    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """Its live properties, or None when it is gone.

        ``known`` is what the state or the program says of it; empty at an import. What the result
        leaves out keeps its known value.
        """

    @abstractmethod
    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Bring it from its ``old`` outputs to its ``new`` inputs."""

    @abstractmethod
    def delete(self, resource_id: str, known: Properties) -> None:
        """Delete it; one that is already gone is fine."""

    def find(self, inputs: Properties) -> str | None:
        """The id of a resource that was created with exactly these inputs by an engine killed before it
        could record it, or None. Types that the caller names can tell; others can't."""
        del inputs
        return None

    def preview_outputs(self, inputs: Properties) -> Properties:
        """Outputs that are known before the resource exists."""
        del inputs
        return {}


Function = Callable[[Properties], Properties]


class Provider:
    """A package's resource types and functions, and its configuration.

    Args:
        package: as in ``aws``.
        version: of the SDK whose provider this one stands for.
        types: every resource type that it has.
        functions: by token, as in ``aws:index/getRegion:getRegion``.
        configure: given the provider's configuration once, before anything else.
        place: the folder in which a missing type would be added, for the error that says so.
    """

    def __init__(
        self,
        package: str,
        version: str,
        types: Iterable[ResourceType],
        functions: Mapping[str, Function] | None = None,
        configure: Callable[[Properties], None] | None = None,
    ) -> None:
        self.package = package
        self.version = version
        self.types = {resource_type.type_name: resource_type for resource_type in types}
        self.functions = dict(functions or {})
        self.configure = configure or (lambda _: None)

    def find_type(self, token: str) -> ResourceType:
        """The resource type.

        Raises:
            LookupError: this provider does not have it; the message says whether any version would.
        """
        if found := self.types.get(token):
            return found
        try:
            schema.input_shape(token)
        except schema.UnknownType:
            msg = f"{token}: the installed pulumi_{self.package} {self.version} has no such resource type"
        else:
            msg = (
                f"{token}: the sandbox's {self.package} provider does not have this resource type; "
                f"add it in sandbox/providers/{self.package}/"
            )
        raise LookupError(msg)

    def check(
        self, token: str, name: str, olds: Properties, news: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """The program's inputs with defaults and generated names, and all that is wrong with them."""
        resource_type = self.find_type(token)
        inputs = {key: value for key, value in news.items() if not key.startswith("__")}
        for key in resource_type.documents:
            if isinstance(inputs.get(key), dict | list) and not has_unknown(inputs[key]):
                inputs[key] = json.dumps(inputs[key])
        shape = schema.input_shape(token)
        known = {**shape.properties, **resource_type.extra_inputs}
        found = list(schema.failures(schema.ObjectShape(known, shape.required), inputs))
        for key in resource_type.documents:
            found += _document_failures(key, inputs.get(key))
        for key in resource_type.unsupported:
            if inputs.get(key) is not None:
                found.append(Failure(key, "the sandbox can't carry this property out"))
        defaulted = self._fill(resource_type, name, olds, inputs, seed)
        if not found:
            found = list(resource_type.check(inputs))
        return {**inputs, DEFAULTED: defaulted}, found

    def _fill(
        self, resource_type: ResourceType, name: str, olds: Properties, inputs: Properties, seed: bytes
    ) -> list[str]:
        defaulted: list[str] = []
        for key, value in resource_type.defaults.items():
            if inputs.get(key) is None:
                inputs[key] = value
                defaulted.append(key)
        autoname = resource_type.autoname
        # Official providers take "<property>Prefix" as a request for a name of the caller's beginning.
        if (
            autoname
            and inputs.get(autoname.property) is None
            and inputs.get(f"{autoname.property}Prefix") is None
        ):
            kept = olds.get(autoname.property) if autoname.property in olds.get(DEFAULTED, ()) else None
            inputs[autoname.property] = kept or autoname.generate(name, seed)
            defaulted.append(autoname.property)
        return defaulted

    def create(self, token: str, inputs: Properties, *, preview: bool) -> tuple[str, Properties]:
        """Create a resource; in a preview, say what is known of it and touch nothing."""
        resource_type = self.find_type(token)
        plain = _plain(inputs)
        if preview:
            return "", self._previewed(resource_type, plain)
        resource_id = resource_type.create(plain)
        return resource_id, self._outputs(resource_type, resource_id, plain, plain)

    def _previewed(self, resource_type: ResourceType, inputs: Properties) -> Properties:
        names = schema.output_names(resource_type.type_name) - inputs.keys()
        unknown = dict.fromkeys(names - self._optional_inputs(resource_type), UNKNOWN)
        chosen = {key: UNKNOWN for key in resource_type.server_chosen if inputs.get(key) is None}
        return unknown | chosen | inputs | resource_type.preview_outputs(inputs)

    def _optional_inputs(self, resource_type: ResourceType) -> set[str]:
        return set(schema.input_shape(resource_type.type_name).properties) - set(resource_type.server_chosen)

    def _outputs(
        self, resource_type: ResourceType, resource_id: str, known: Properties, inputs: Properties
    ) -> Properties:
        live = resource_type.read(resource_id, known)
        if live is None:
            msg = f"{resource_type.type_name} {resource_id} is gone right after it was written"
            raise RuntimeError(msg)
        # The caller's own writing of a document is kept where the server only lays it out differently.
        for key in resource_type.documents:
            if same_document(live.get(key), inputs.get(key)):
                live[key] = inputs[key]
        return _secret({**known, **live}, resource_type)

    def read(
        self, token: str, resource_id: str, state: Properties, inputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Live outputs and the inputs that would give them, or None when the resource is gone."""
        resource_type = self.find_type(token)
        live = resource_type.read(resource_id, _plain(state))
        if live is None:
            return None
        # At an import nothing is known of inputs that only guide the provider; they are as by default.
        outputs = {**(_plain(state) or resource_type.defaults), **live}
        read_inputs: Properties = {}
        if DEFAULTED in inputs:
            read_inputs[DEFAULTED] = inputs[DEFAULTED]
        for key in {*schema.input_shape(token).properties, *resource_type.extra_inputs}:
            value = outputs.get(key)
            if key in inputs:
                unchanged = key in resource_type.documents and same_document(value, inputs[key])
                read_inputs[key] = inputs[key] if unchanged else value
            elif (
                key in resource_type.defaults or (key in live and not _is_nothing(value))
            ) and key not in resource_type.server_chosen:
                read_inputs[key] = value
        return _secret(outputs, resource_type), {k: v for k, v in read_inputs.items() if v is not None}

    def update(
        self, token: str, resource_id: str, old: Properties, new: Properties, *, preview: bool
    ) -> Properties:
        """Change a resource in place; in a preview, say what is known of it and touch nothing."""
        resource_type = self.find_type(token)
        plain, inputs = _plain(old), _plain(new)
        carried = {k: v for k, v in plain.items() if k not in schema.input_shape(token).properties}
        carried |= {k: v for k, v in plain.items() if k in resource_type.server_chosen}
        if preview:
            return _secret(carried | inputs | resource_type.preview_outputs(inputs), resource_type)
        resource_type.update(resource_id, plain, inputs)
        return self._outputs(resource_type, resource_id, carried | inputs, inputs)

    def delete(self, token: str, resource_id: str, state: Properties) -> None:
        """Delete a resource."""
        self.find_type(token).delete(resource_id, _plain(state))


def _plain(properties: Properties) -> Properties:
    return {key: value for key, value in properties.items() if not key.startswith("__") and value is not None}


def _secret(outputs: Properties, resource_type: ResourceType) -> Properties:
    return {
        key: Secret(value) if key in resource_type.secret_outputs and value is not None else value
        for key, value in outputs.items()
    }


def _is_nothing(value: Value) -> bool:
    return value is None or value in ("", False, 0, [], {})  # pyright: ignore[reportUnnecessaryContains]


def _document_failures(key: str, value: Value) -> Iterable[Failure]:
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError as error:
            yield Failure(key, f"must be a JSON document: {error}")
