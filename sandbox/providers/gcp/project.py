"""The provider's project and region, the records of what has no server, and the types that share them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kilo.errors import BadInput
from sandbox.providers.base import ResourceType
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties
from sandbox.stages import PROJECT_NUMBER_VARIABLE

RECORDS_VARIABLE = "KILO_RECORDS"
# The official provider puts this label on everything that takes labels.
_PROVISIONED = {"goog-pulumi-provisioned": "true"}


class Project:
    """The provider's configuration."""

    def __init__(self) -> None:
        self.name = os.environ.get("GOOGLE_PROJECT") or os.environ.get("GOOGLE_CLOUD_PROJECT") or ""
        self.region = os.environ.get("GOOGLE_REGION") or ""
        self.default_labels: dict[str, str] = {}

    def configure(self, arguments: Properties) -> None:
        """Take the provider's configuration."""
        self.name = arguments.get("project") or self.name
        self.region = arguments.get("region") or self.region
        labels = arguments.get("defaultLabels") or {}
        self.default_labels = json.loads(labels) if isinstance(labels, str) else labels

    @property
    def number(self) -> str:
        """The number that the stage at hand says, or one that is the same for the same project."""
        if number := os.environ.get(PROJECT_NUMBER_VARIABLE):
            return number
        return str(10**11 + int(hashlib.sha256(self.name.encode()).hexdigest()[:10], 16) % 9 * 10**10)


PROJECT = Project()


def _folder() -> Path:
    if not (folder := os.environ.get(RECORDS_VARIABLE)):
        msg = f'{RECORDS_VARIABLE} is not set: run `eval "$(kilo env)"`'
        raise BadInput(msg)
    return Path(folder, "gcp")


class Records:
    """One JSON file a resource, written whole and renamed, so that a kill leaves the old or the new one."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def _path(self, resource_id: str) -> Path:
        return _folder() / self._kind / f"{hashlib.sha256(resource_id.encode()).hexdigest()[:32]}.json"

    def put(self, resource_id: str, properties: Properties) -> None:
        """Write a record, durably."""
        path = self._path(resource_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"id": resource_id, "properties": properties}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def get(self, resource_id: str) -> Properties | None:
        """A record's properties, or None."""
        try:
            return json.loads(self._path(resource_id).read_text(encoding="utf-8"))["properties"]
        except FileNotFoundError:
            return None

    def remove(self, resource_id: str) -> None:
        """Take a record away; one that is already gone is fine."""
        self._path(resource_id).unlink(missing_ok=True)


class GcpType(ResourceType):
    """A resource type of Google Cloud, in a project and perhaps labelled."""

    labelled = False
    in_project = True
    server_chosen = ("project",)

    @property
    def records(self) -> Records:
        """Where this type's resources are recorded."""
        return Records(self.type_name.replace(":", "-").replace("/", "-"))

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """A project is named by the resource or by the provider's configuration."""
        if self.in_project and not (inputs.get("project") or PROJECT.name):
            yield Failure("project", "missing: set gcp:project in the stack's configuration, or project here")

    def preview_outputs(self, inputs: Properties) -> Properties:
        """The project and the labels are known before the resource is."""
        outputs: Properties = {}
        if self.in_project:
            outputs["project"] = inputs.get("project") or PROJECT.name
        if self.labelled:
            labels: dict[str, Any] = {**PROJECT.default_labels, **(inputs.get("labels") or {})}
            outputs["pulumiLabels"] = labels
            outputs["effectiveLabels"] = {**_PROVISIONED, **labels}
        return outputs


class Recorded(GcpType):
    """A type without a server: its properties are what was last written of them."""

    def resource_id(self, inputs: Properties) -> str:
        """The id as Google Cloud forms it."""
        raise NotImplementedError

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        """Outputs that Google Cloud would fill in."""
        del resource_id, inputs
        return {}

    def create(self, inputs: Properties) -> str:
        """Record it."""
        inputs = {**inputs, **self.preview_outputs(inputs)}
        resource_id = self.resource_id(inputs)
        self.records.put(resource_id, {**inputs, **self.computed(resource_id, inputs)})
        return resource_id

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """As recorded."""
        return self.records.get(resource_id)

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Record it anew."""
        new = {**new, **self.preview_outputs(new)}
        self.records.put(resource_id, {**new, **self.computed(resource_id, new)})

    def delete(self, resource_id: str, known: Properties) -> None:
        """Take the record away."""
        self.records.remove(resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By the id that it would have; recording twice changes nothing, so nothing needs finding."""
        return None
