"""Deletion: what an object owns goes before it, what a namespace holds before the namespace.

That is foreground deletion, the propagation that Pulumi's provider asks for. Pods are removed by the node
when their processes have ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.objects import Key, Object, controller_of, is_deleting, is_owned_by
from sandbox.cluster.resources import Resources

_OWNERS = (("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet"))


class OwnerDeletion(Controller):
    """Removes a deleted owner once all that it owns is gone."""

    def __init__(self, resources: Resources, api_version: str, kind: str) -> None:
        super().__init__(resources)
        self.api_version, self.kind = api_version, kind

    @override
    def reconcile(self, obj: Object) -> float | None:
        if not is_deleting(obj):
            return None
        left = False
        for key in self.store.all_keys():
            other = self.store.get(key) if key.namespace == obj["metadata"]["namespace"] else None
            if other is not None and is_owned_by(other, obj):
                left = True
                if not is_deleting(other):
                    self.resources.delete(key)
        if not left:
            self.store.remove(
                Key(self.api_version, self.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
            )
        return None


class NamespaceDeletion(Controller):
    """Empties a deleted namespace and removes it."""

    api_version = "v1"
    kind = "Namespace"

    @override
    def affected(self, key: Key, obj: Object) -> Iterable[Key]:
        if key.kind == "Namespace":
            return [key]
        return [Key("v1", "Namespace", "", key.namespace)] if key.namespace else []

    @override
    def reconcile(self, obj: Object) -> float | None:
        key = Key("v1", "Namespace", "", obj["metadata"]["name"])
        if not is_deleting(obj):
            self.store.put_status(key, {"phase": "Active"})
            return None
        self.store.put_status(key, {"phase": "Terminating"})
        held = [other for other in self.store.all_keys() if other.namespace == key.name]
        for other in held:
            found = self.store.get(other)
            if found is not None and not is_deleting(found):
                self.resources.delete(other)
        if not any(other.namespace == key.name for other in self.store.all_keys()):
            self.store.remove(key)
        return None


class OrphanDeletion(Controller):
    """Deletes pods whose owner is gone, as after a kill between the two."""

    api_version = "v1"
    kind = "Pod"

    @override
    def reconcile(self, obj: Object) -> float | None:
        owner = controller_of(obj)
        if owner is None or is_deleting(obj):
            return None
        found = self.store.get(owner)
        if found is None or not is_owned_by(obj, found):
            self.resources.delete(Key("v1", "Pod", obj["metadata"]["namespace"], obj["metadata"]["name"]))
        return None


def deletion_controllers(resources: Resources) -> list[Controller]:
    """All controllers that delete."""
    jobs = (("batch/v1", "Job"), ("batch/v1", "CronJob"))
    owners = [OwnerDeletion(resources, *kind) for kind in (*_OWNERS, *jobs)]
    return [*owners, NamespaceDeletion(resources), OrphanDeletion(resources)]
