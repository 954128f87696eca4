"""Google Cloud Storage buckets on fake-gcs-server.

The server holds a bucket's existence, its objects and its default event-based hold. The rest of a bucket's
configuration is recorded, since the server, with its objects in files, keeps none of it: it has no object
versions and enforces no retention.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import httpx

from kilo.errors import BadInput, Unreachable
from sandbox.providers.base import Autoname
from sandbox.providers.gcp.project import PROJECT, GcpType
from sandbox.providers.here import is_here
from sandbox.providers.rules import at, each, matches, one_of
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

ENDPOINT_VARIABLE = "STORAGE_EMULATOR_HOST"
_NOT_FOUND = 404
_LONGEST_RETENTION_SECONDS = 3_155_760_000


def _server() -> httpx.Client:
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    if not is_here(endpoint):
        msg = f"{ENDPOINT_VARIABLE} must be an address on this machine, and is {endpoint or 'not set'}"
        raise BadInput(msg)
    return httpx.Client(base_url=f"{endpoint.rstrip('/')}/storage/v1", timeout=30, trust_env=False)


def _call(method: str, path: str, **arguments: object) -> httpx.Response:
    with _server() as server:
        try:
            response = server.request(method, path, **arguments)  # pyright: ignore[reportArgumentType]
        except httpx.TransportError as error:
            msg = f"{server.base_url}: the storage server does not answer ({error})"
            raise Unreachable(msg) from error
    if response.status_code != _NOT_FOUND:
        response.raise_for_status()
    return response


class Bucket(GcpType):
    """A bucket."""

    type_name = "gcp:storage/bucket:Bucket"
    labelled = True
    immutable = (
        "name",
        "project",
        "location",
        "customPlacementConfig",
        "enableObjectRetention",
        "hierarchicalNamespace",
    )
    autoname = Autoname(maximum=63, lower=True)
    defaults = {"forceDestroy": False, "storageClass": "STANDARD"}
    server_chosen = (
        "project",
        "publicAccessPrevention",
        "softDeletePolicy",
        "rpo",
        "uniformBucketLevelAccess",
    )

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Naming rules and ranges of Cloud Storage."""
        yield from super().check(inputs)
        yield from matches(
            inputs,
            "name",
            r"(?!goog)(?!.*google)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
            'at least 3 lower-case letters, digits, hyphens, underscores and dots, without "google"',
        )
        yield from one_of(inputs, "publicAccessPrevention", ("enforced", "inherited"))
        classes = ("STANDARD", "MULTI_REGIONAL", "REGIONAL", "NEARLINE", "COLDLINE", "ARCHIVE")
        yield from one_of(inputs, "storageClass", classes)
        actions = ("Delete", "SetStorageClass", "AbortIncompleteMultipartUpload")
        yield from each(inputs, "lifecycleRules", lambda rule: one_of(rule, "action.type", actions))
        period = at(inputs, "retentionPolicy.retentionPeriod")
        if isinstance(period, str | int) and not (
            str(period).isdigit() and 1 <= int(period) <= _LONGEST_RETENTION_SECONDS
        ):
            words = f"must be from 1 to {_LONGEST_RETENTION_SECONDS} seconds, and is {period}"
            yield Failure("retentionPolicy.retentionPeriod", words)
        if period is not None and at(inputs, "versioning.enabled") is True:
            yield Failure(
                "versioning.enabled", "Cloud Storage has versioning or a retention policy, not both"
            )

    def create(self, inputs: Properties) -> str:
        """The bucket's name is its id."""
        name: str = inputs["name"]
        body = {"name": name, **_held(inputs)}
        _call("POST", "/b", params={"project": inputs.get("project") or PROJECT.name}, json=body)
        self.records.put(name, inputs)
        return name

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """The server's part is live, the rest as recorded."""
        response = _call("GET", f"/b/{resource_id}")
        if response.status_code == _NOT_FOUND:
            return None
        # One that was made by hand has no record, and then only what is asked for can be said of it.
        recorded = self.records.get(resource_id) or known or {"location": "US", "storageClass": "STANDARD"}
        held = bool(response.json().get("defaultEventBasedHold"))
        return {
            **recorded,
            **self.preview_outputs(recorded),
            "name": resource_id,
            "defaultEventBasedHold": held if held or "defaultEventBasedHold" in recorded else None,
            "publicAccessPrevention": recorded.get("publicAccessPrevention", "inherited"),
            "uniformBucketLevelAccess": recorded.get("uniformBucketLevelAccess", False),
            "projectNumber": int(PROJECT.number),
            "selfLink": f"https://www.googleapis.com/storage/v1/b/{resource_id}",
            "url": f"gs://{resource_id}",
            "timeCreated": response.json().get("timeCreated"),
            "updated": response.json().get("timeCreated"),
        }

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """A locked retention policy is never shortened, as in Cloud Storage."""
        if at(old, "retentionPolicy.isLocked"):
            before = int(at(old, "retentionPolicy.retentionPeriod") or 0)
            after = int(at(new, "retentionPolicy.retentionPeriod") or 0)
            if after < before or not at(new, "retentionPolicy.isLocked"):
                msg = f"the retention policy of {resource_id} is locked: it can be lengthened only"
                raise BadInput(msg)
        _call("PATCH", f"/b/{resource_id}", json=_held(new))
        self.records.put(resource_id, new)

    def delete(self, resource_id: str, known: Properties) -> None:
        """Empties it first when ``forceDestroy`` says so."""
        if known.get("forceDestroy"):
            listed = _call("GET", f"/b/{resource_id}/o", params={"versions": "true"})
            for item in listed.json().get("items", ()) if listed.is_success else ():
                generation = {"generation": item["generation"]}
                _call("DELETE", f"/b/{resource_id}/o/{_quoted(item['name'])}", params=generation)
        _call("DELETE", f"/b/{resource_id}")
        self.records.remove(resource_id)

    def find(self, inputs: Properties) -> str | None:
        """By its name."""
        return inputs["name"] if self.read(inputs["name"], inputs) else None


def _held(inputs: Properties) -> dict[str, bool]:
    return {"defaultEventBasedHold": bool(inputs.get("defaultEventBasedHold"))}


def _quoted(name: str) -> str:
    return httpx.URL("").copy_with(path=name).raw_path.decode().replace("/", "%2F")


TYPES = (Bucket(),)
