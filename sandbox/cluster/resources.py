"""The API server's work on objects: admit, validate, store, delete.

Everything that changes an object, a client's request or a controller, goes through here, so that no
object is ever stored that the API server would refuse.
"""

from __future__ import annotations

import copy
from typing import Any

from sandbox.cluster import semantics
from sandbox.cluster.addresses import Addresses
from sandbox.cluster.admission import apply_over, fill, managed, without_nulls
from sandbox.cluster.errors import ApiError, bad_request, forbidden, invalid, not_found
from sandbox.cluster.kinds import Kind, Kinds
from sandbox.cluster.objects import Key, Object, is_deleting, key_of, new_uid, timestamp
from sandbox.cluster.schemas import Schemas
from sandbox.cluster.store import Store

_NAMESPACES = "namespaces"
_BUILT_IN_NAMESPACES = {"default", "kube-system"}
# Removed by whoever ends their processes, or when nothing of theirs is left.
_GRADUAL = {"Pod", "Namespace", "Deployment", "ReplicaSet", "StatefulSet", "Job", "CronJob"}


class Resources:
    """Objects of all kinds, by the API server's rules."""

    def __init__(self, store: Store, schemas: Schemas, addresses: Addresses) -> None:
        self.store = store
        self.kinds = Kinds(schemas.custom_kinds)
        self._schemas = schemas
        self._addresses = addresses

    def get(self, key: Key) -> Object:
        """The object.

        Raises:
            ApiError: 404 when there is none.
        """
        kind = self.kinds.find(key.api_version, key.kind)
        if found := self.store.get(key):
            return found
        raise not_found(kind.plural, key.name)

    def apply(self, config: Object, *, manager: str, dry_run: bool = False) -> Object:
        """Server-side apply by force: create the object, or set in it what ``config`` says.

        Raises:
            ApiError: the object is refused, with all reasons at once.
        """
        kind = self._kind_of(config)
        config = fill_identity(without_nulls(config), kind)
        self._schemas.validate(kind, config)
        old = self.store.get(key_of(config))
        if old is not None and is_deleting(old):
            raise ApiError(
                409, "AlreadyExists", f'object is being deleted: {kind.plural} "{key_of(config).name}"'
            )
        new = apply_over(old, config, manager) if old else copy.deepcopy(config)
        managed(new, config, manager, timestamp())
        return self._store(kind, old, new, dry_run=dry_run)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object.

        Raises:
            ApiError: it is refused, or there is one of that name.
        """
        kind = self._kind_of(obj)
        obj = fill_identity(without_nulls(obj), kind)
        self._schemas.validate(kind, obj)
        if self.store.get(key_of(obj)):
            name = key_of(obj).name
            raise ApiError(
                409, "AlreadyExists", f'{kind.plural} "{name}" already exists', kind=kind.plural, name=name
            )
        return self._store(kind, None, obj, dry_run=dry_run)

    def replace(self, obj: Object) -> Object:
        """Store a changed object.

        Raises:
            ApiError: it is refused, or gone.
        """
        kind = self._kind_of(obj)
        return self._store(kind, self.get(key_of(obj)), obj, dry_run=False)

    def delete(self, key: Key, *, dry_run: bool = False) -> Object:
        """Begin the deletion of an object; what it owns goes before it.

        Raises:
            ApiError: 404 when there is none.
        """
        found = self.get(key)
        if not dry_run:
            if key.kind in _GRADUAL:
                self.store.begin_deletion(key)
            else:
                self.store.remove(key)
        return found

    def _kind_of(self, obj: Object) -> Kind:
        for field in ("apiVersion", "kind"):
            if not isinstance(obj.get(field), str):
                msg = f"Object '{field}' is missing"
                raise bad_request(msg)
        return self.kinds.find(obj["apiVersion"], obj["kind"])

    def _store(self, kind: Kind, old: Object | None, new: Object, *, dry_run: bool) -> Object:
        new = fill(new, namespaced=kind.namespaced)
        name = key_of(new).name
        causes = semantics.check(kind, new)
        if causes:
            raise invalid(kind.kind, name, causes)
        self._admit(kind, old, new)
        causes = semantics.check_update(kind, old, new) if old else []
        if causes:
            raise invalid(kind.kind, name, causes)
        if not dry_run:
            return self.store.put(new)
        if old is None:
            new["metadata"].update({"uid": new_uid(), "creationTimestamp": timestamp(), "generation": 1})
        return new

    def _admit(self, kind: Kind, old: Object | None, new: Object) -> None:
        key = key_of(new)
        if kind.namespaced and key.namespace not in _BUILT_IN_NAMESPACES:
            namespace = self.store.get(Key("v1", "Namespace", "", key.namespace))
            if namespace is None:
                raise not_found(_NAMESPACES, key.namespace)
            if old is None and is_deleting(namespace):
                why = f"namespace {key.namespace} is being terminated, so nothing can be created in it"
                raise forbidden(kind.plural, key.name, why)
        if kind.kind == "Service":
            self._give_address(key, old, new)
        if kind.kind == "Pod" and old is None:
            self._require_service_account(kind, key, new)

    def _give_address(self, key: Key, old: Object | None, new: Object) -> None:
        spec = new["spec"]
        if spec["type"] == "ExternalName":
            return
        if spec.get("clusterIP") is None:
            spec["clusterIP"] = (
                old["spec"]["clusterIP"] if old else self._addresses.service(key.namespace, key.name)
            )
        spec["clusterIPs"] = [spec["clusterIP"]]

    def _require_service_account(self, kind: Kind, key: Key, pod: Object) -> None:
        name = pod["spec"].get("serviceAccountName") or "default"
        account = Key("v1", "ServiceAccount", key.namespace, name)
        if name != "default" and self.store.get(account) is None:
            why = (
                f'error looking up service account {key.namespace}/{name}: serviceaccount "{name}" not found'
            )
            raise forbidden(kind.plural, key.name, why)


def fill_identity(obj: Object, kind: Kind) -> Object:
    """The object with a metadata section and, where its kind has one, a namespace."""
    metadata: dict[str, Any] = obj.get("metadata") or {}
    obj["metadata"] = metadata
    if not metadata.get("name"):
        raise invalid(kind.kind, "", semantics.check(kind, {**obj, "metadata": {}})[:1])
    if kind.namespaced:
        metadata.setdefault("namespace", "default")
    else:
        metadata.pop("namespace", None)
    return obj
