"""Serves objects of any kind to the engine, by the official provider's rules.

A preview asks the API server by a dry run, so that what it would refuse is refused before anything is
touched. Where a value is known only after the update, or the namespace does not exist yet, the preview
says what it can.
"""

from __future__ import annotations

import base64
import os
import random
import threading
from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, empty_pb2
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from pulumi.runtime.proto import provider_pb2

from sandbox.providers.base import Provider
from sandbox.providers.diff import Change, changes
from sandbox.providers.kubernetes.api import CLUSTER_SCOPED, FIELD_MANAGER, NOT_FOUND, Api, Object, Refused
from sandbox.providers.kubernetes.readiness import DEFAULT_SECONDS, NotReady, wait_gone, wait_ready
from sandbox.providers.kubernetes.replacement import replaces
from sandbox.providers.server import KINDS, ProviderServicer, name_of, one_line, type_of
from sandbox.providers.values import UNKNOWN, Properties, Secret, Value, decode, encode, has_unknown

AUTONAMED = "pulumi.com/autonamed"
FORCED = "pulumi.com/patchForce"
_MUTABLE = {
    "ConfigMap": ("enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE"),
    "Secret": ("enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE"),
}
_SERVER_SET = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")


class KubernetesServicer(ProviderServicer):
    """The engine's calls, each answered from the cluster's API."""

    def __init__(self, version: str) -> None:
        super().__init__(Provider("kubernetes", version, ()))
        self._api = Api()
        self._mutable: frozenset[str] = frozenset()
        self._cancelled = threading.Event()

    def Configure(self, request: Any, context: Any) -> Any:
        with one_line(context, "provider kubernetes"):
            given = decode(request.args)
            self._mutable = frozenset(
                kind
                for kind, (setting, variable) in _MUTABLE.items()
                if str(given.get(setting) or os.environ.get(variable, "")).lower() == "true"
            )
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Cancel(self, request: Any, context: Any) -> Any:
        self._cancelled.set()
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            inputs = decode(request.news)
            kind = type_of(request.urn).rpartition(":")[2]
            if not inputs.get("apiVersion") or not inputs.get("kind"):
                msg = f"{type_of(request.urn)} is not a kind that the sandbox's kubernetes provider has"
                raise LookupError(msg)
            metadata = inputs.setdefault("metadata", {})
            if metadata is not UNKNOWN:
                self._name(metadata, name_of(request.urn), decode(request.olds), request.randomSeed)
                if kind not in CLUSTER_SCOPED:
                    metadata.setdefault("namespace", "default")
        return provider_pb2.CheckResponse(inputs=encode(inputs))

    def _name(self, metadata: Object, name: str, olds: Properties, seed: bytes) -> None:
        if metadata.get("name") is not None:
            return
        old: Object = olds.get("metadata") or {}
        if (old.get("annotations") or {}).get(AUTONAMED) == "true":
            metadata["name"] = old["name"]
        else:
            digits = f"{random.Random(seed or None).getrandbits(32):08x}"  # noqa: S311  a name, no secret
            metadata["name"] = f"{name}-{digits}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), AUTONAMED: "true"}

    def Diff(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            old, new = decode(request.old_inputs), decode(request.news)
            found = [
                Change(change.path, change.kind, replaces(str(new.get("kind")), change, self._mutable))
                for change in changes(old, new)
            ]
        replacing = [change for change in found if change.replaces]
        annotations = (new["metadata"].get("annotations") or {}) if new["metadata"] is not UNKNOWN else {}
        same_name = (old.get("metadata") or {}).get("name") == new["metadata"].get("name")
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({_top(change) for change in found}),
            replaces=sorted({_top(change) for change in replacing}),
            # Two objects can't have one name.
            deleteBeforeReplace=bool(replacing) and same_name and annotations.get(AUTONAMED) != "true",
            detailedDiff={
                change.path: provider_pb2.PropertyDiff(
                    kind=KINDS[change.kind, change.replaces], inputDiff=True
                )
                for change in found
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = decode(request.properties)
        with one_line(context, request.urn):
            if request.preview:
                return provider_pb2.CreateResponse(id="", properties=encode(self._preview_new(inputs)))
            existing = self._api.get(inputs)
            if existing is not None and not _is_ours(existing) and not _is_adopted(inputs):
                msg = "it exists already and was not made by this program; import it or delete it"
                raise ValueError(msg)
            stored = self._api.apply(_sent(inputs))
        live = self._ready(context, inputs, stored, request.timeout)
        return provider_pb2.CreateResponse(id=_id_of(live), properties=encode(_outputs(live, inputs)))

    def Update(self, request: Any, context: Any) -> Any:
        inputs = decode(request.news)
        with one_line(context, request.urn):
            if request.preview:
                return provider_pb2.UpdateResponse(properties=encode(self._preview(inputs, new=False)))
            stored = self._api.apply(_sent(inputs))
        live = self._ready(context, inputs, stored, request.timeout)
        return provider_pb2.UpdateResponse(properties=encode(_outputs(live, inputs)))

    def _preview_new(self, inputs: Properties) -> Properties:
        if has_unknown(inputs) or self._api.get(inputs) is None:
            return self._preview(inputs, new=True)
        # The object that this one replaces is still there; beside it, the new one is checked by another name.
        metadata = {**inputs["metadata"], "name": f"{inputs['metadata']['name'][:50]}-next"}
        self._preview({**inputs, "metadata": metadata}, new=True)
        return {**inputs, "status": UNKNOWN}

    def _preview(self, inputs: Properties, *, new: bool) -> Properties:
        if not has_unknown(inputs):
            try:
                dry = self._api.apply(_sent(inputs), dry_run=True)
            except Refused as refused:
                # A namespace that this very update will create; everything else in it is checked then.
                if (refused.code, refused.kind) != (NOT_FOUND, "namespaces"):
                    raise
            else:
                return _outputs(_before_it_is_stored(dry, new=new), inputs)
        return {**inputs, "status": UNKNOWN}

    def _ready(self, context: Any, inputs: Properties, stored: Object, timeout: float) -> Object:
        try:
            return wait_ready(self._api, stored, timeout or DEFAULT_SECONDS, self._cancelled)
        except NotReady as failed:
            # The engine records what was stored, and the next update goes on from there.
            detail = provider_pb2.ErrorResourceInitFailed(
                id=_id_of(stored),
                properties=encode(_outputs(self._api.get(stored) or stored, inputs)),
                inputs=encode(inputs),
                reasons=failed.reasons,
            )
            packed = any_pb2.Any()
            packed.Pack(detail)
            status = status_pb2.Status(code=code_pb2.UNKNOWN, message=str(failed), details=[packed])
            context.abort_with_status(rpc_status.to_status(status))
            raise AssertionError from failed

    def Read(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            state, inputs = decode(request.properties), decode(request.inputs)
            live = self._api.get(state or _named(type_of(request.urn), request.id))
        if live is None or live["metadata"].get("deletionTimestamp"):
            return provider_pb2.ReadResponse()
        seen = _projected(live, inputs) if inputs else _importable(live)
        return provider_pb2.ReadResponse(
            id=_id_of(live), properties=encode(_outputs(live, seen)), inputs=encode(seen)
        )

    def Delete(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            state = decode(request.properties)
            self._api.delete(state)
            wait_gone(self._api, state, request.timeout or DEFAULT_SECONDS, self._cancelled)
        return empty_pb2.Empty()


def _top(change: Change) -> str:
    return change.path.split(".", 1)[0].split("[", 1)[0]


def _id_of(obj: Object) -> str:
    metadata = obj["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _named(token: str, resource_id: str) -> Object:
    """The object that ``pulumi import kubernetes:apps/v1:Deployment NAME NAMESPACE/NAME`` means."""
    _, group_version, kind = token.split(":")
    namespace, _, name = resource_id.rpartition("/")
    api_version = group_version.removeprefix("core/")
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}


def _sent(inputs: Properties) -> Object:
    return {name: value for name, value in inputs.items() if not name.startswith("__")}


def _is_ours(live: Object) -> bool:
    """Whether an engine that was killed before it could record the object made it."""
    return any(entry.get("manager") == FIELD_MANAGER for entry in live["metadata"].get("managedFields") or ())


def _is_adopted(inputs: Properties) -> bool:
    """Whether the program says that another's object is to become its own."""
    return (inputs["metadata"].get("annotations") or {}).get(FORCED) == "true"


def _outputs(live: Object, inputs: Properties) -> Properties:
    outputs: Properties = {**inputs, **live}
    if outputs.get("kind") == "Secret":
        for name in ("data", "stringData"):
            if outputs.get(name) is not None:
                outputs[name] = Secret(outputs[name])
    return outputs


def _before_it_is_stored(dry: Object, *, new: bool) -> Object:
    """A dry run's answer in which what the server will choose anew is unknown."""
    chosen = _SERVER_SET if new else ("resourceVersion", "generation", "managedFields")
    return {**dry, "metadata": {**dry["metadata"], **dict.fromkeys(chosen, UNKNOWN)}, "status": UNKNOWN}


def _importable(live: Object) -> Properties:
    metadata = {name: value for name, value in live["metadata"].items() if name not in _SERVER_SET}
    return {**{name: value for name, value in live.items() if name != "status"}, "metadata": metadata}


def _projected(live: Object, inputs: Properties) -> Properties:
    """The inputs with the values that the live object has for them, so that drift shows as a change."""
    seen: Properties = {}
    for name, value in inputs.items():
        if name == "stringData":
            seen[name] = _decoded(live.get("data") or {}, value)
        else:
            seen[name] = _live_value(value, live.get(name))
    return {name: value for name, value in seen.items() if value is not None}


def _decoded(data: Mapping[str, str], known: Mapping[str, Value]) -> dict[str, Value]:
    return {name: base64.b64decode(data[name]).decode(errors="replace") for name in known if name in data}


def _live_value(known: Value, live: Value) -> Value:
    if isinstance(known, dict) and isinstance(live, dict):
        found = {name: _live_value(value, live.get(name)) for name, value in known.items()}
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(known, list) and isinstance(live, list) and len(known) == len(live):
        return [_live_value(one, other) for one, other in zip(known, live, strict=True)]
    # The server leaves out what is empty.
    return known if live is None and known in ({}, [], "") else live
