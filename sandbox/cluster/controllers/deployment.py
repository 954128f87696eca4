"""Deployments: a ReplicaSet for each version of the template, and the walk from one to the next.

With a rolling update a new pod is ready before an old one stops, as far as maxSurge and maxUnavailable
say so. https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.controllers.pods import template_hash
from sandbox.cluster.objects import (
    Key,
    Object,
    annotations_of,
    condition,
    controller_of,
    find_condition,
    is_deleting,
    key_of,
    labels_of,
    owned_by,
    seconds_since,
    timestamp,
    with_transitions,
)
from sandbox.cluster.quantities import scaled

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


class DeploymentController(Controller):
    """Scales ReplicaSets up and down."""

    api_version = "apps/v1"
    kind = "Deployment"

    @override
    def affected(self, key: Key, obj: Object) -> Iterable[Key]:
        if key.kind == "Pod":
            # A pod on its way out counts no more in its ReplicaSet, and Recreate waits until it is gone.
            owner = controller_of(obj)
            replica_set = self.store.get(owner) if owner else None
            return super().affected(owner, replica_set) if owner and replica_set else []
        return super().affected(key, obj)

    @override
    def reconcile(self, obj: Object) -> float | None:
        if is_deleting(obj):
            return None
        current = self._current(obj)
        sets = self.controlled(obj, "apps/v1", "ReplicaSet")
        old = [item for item in sets if item["metadata"]["uid"] != current["metadata"]["uid"]]
        if obj["spec"]["strategy"]["type"] == "Recreate":
            self._recreate(obj, current, old)
        else:
            self._roll(obj, current, old)
        self._forget(obj, old)
        return self._report(obj, current)

    def _current(self, obj: Object) -> Object:
        """The ReplicaSet of the present template, the latest revision."""
        template, metadata = obj["spec"]["template"], obj["metadata"]
        version = template_hash(template)
        sets = self.controlled(obj, "apps/v1", "ReplicaSet")
        latest = max((_revision(item) for item in sets), default=0)
        found = next((item for item in sets if labels_of(item).get(HASH_LABEL) == version), None)
        if found is None:
            found = self.resources.create(_replica_set(obj, version, latest + 1))
            latest += 1
        elif _revision(found) < latest:
            latest += 1
            found["metadata"]["annotations"][REVISION] = str(latest)
            found = self.resources.replace(found)
        if annotations_of(obj).get(REVISION) != str(latest):
            metadata["annotations"] = {**annotations_of(obj), REVISION: str(latest)}
            self.resources.replace(obj)
        return found

    def _scale(self, replica_set: Object, replicas: int) -> None:
        if replica_set["spec"]["replicas"] != replicas:
            replica_set["spec"]["replicas"] = replicas
            self.resources.replace(replica_set)

    def _recreate(self, obj: Object, current: Object, old: list[Object]) -> None:
        for item in old:
            self._scale(item, 0)
        if not any(self.controlled(item, "v1", "Pod") for item in old):
            self._scale(current, obj["spec"]["replicas"])

    def _roll(self, obj: Object, current: Object, old: list[Object]) -> None:
        wanted, rolling = obj["spec"]["replicas"], obj["spec"]["strategy"]["rollingUpdate"]
        surge = scaled(rolling["maxSurge"], wanted, up=True)
        unavailable = scaled(rolling["maxUnavailable"], wanted, up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        running = [item for item in old if item["spec"]["replicas"]]
        if not running:
            self._scale(current, wanted)
            return
        total = sum(item["spec"]["replicas"] for item in (current, *running))
        have = current["spec"]["replicas"]
        if have > wanted:
            self._scale(current, wanted)
        elif (room := wanted + surge - total) > 0:
            self._scale(current, min(wanted, have + room))
        missing = max(0, current["spec"]["replicas"] - _available(current))
        # By what is asked for, which is never behind, and by what is available, which may be.
        least = wanted - unavailable
        spare = sum(item["spec"]["replicas"] for item in (current, *running)) - least - missing
        available = sum(_available(item) for item in (current, *running))
        for item in running:
            # Old pods that don't serve may go first.
            broken = min(item["spec"]["replicas"] - _available(item), spare)
            serving = min(_available(item), available - least, spare - max(0, broken))
            if (go := max(0, broken) + max(0, serving)) > 0:
                self._scale(item, item["spec"]["replicas"] - go)
                return

    def _forget(self, obj: Object, old: list[Object]) -> None:
        idle = [item for item in old if not item["spec"]["replicas"] and not item["status"].get("replicas")]
        idle.sort(key=_revision)
        for item in idle[: max(0, len(idle) - obj["spec"]["revisionHistoryLimit"])]:
            if not is_deleting(item):
                self.resources.delete(key_of(item))

    def _report(self, obj: Object, current: Object) -> float | None:
        sets = self.controlled(obj, "apps/v1", "ReplicaSet")
        current = next(item for item in sets if item["metadata"]["uid"] == current["metadata"]["uid"])
        wanted, old = obj["spec"]["replicas"], obj.get("status") or {}

        def total(field: str) -> int:
            return sum((item["status"] or {}).get(field, 0) for item in sets)

        available = total("availableReplicas")
        counts = {
            "replicas": total("replicas"),
            "updatedReplicas": (current["status"] or {}).get("replicas", 0),
            "readyReplicas": total("readyReplicas"),
            "availableReplicas": available,
        }
        if available < wanted:
            counts["unavailableReplicas"] = wanted - available
        complete = counts["updatedReplicas"] == wanted == counts["replicas"] == available
        rolling = obj["spec"]["strategy"].get("rollingUpdate") or {"maxUnavailable": 0}
        enough = available >= wanted - scaled(rolling["maxUnavailable"], wanted, up=False)
        progressing, again = self._progress(obj, current, counts, complete=complete)
        conditions = [
            condition(
                "Available",
                holds=enough,
                reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
                message=f"Deployment {'has' if enough else 'does not have'} minimum availability.",
            ),
            progressing,
        ]
        if failure := find_condition(current, "ReplicaFailure"):
            conditions.append(failure)
        status = {
            **counts,
            "observedGeneration": (self.store.get(key_of(obj)) or obj)["metadata"]["generation"],
            "conditions": with_transitions(conditions, old.get("conditions")),
        }
        self.store.put_status(key_of(obj), status)
        return again

    def _progress(
        self, obj: Object, current: Object, counts: dict[str, int], *, complete: bool
    ) -> tuple[Object, float | None]:
        name = current["metadata"]["name"]
        before = find_condition(obj, "Progressing") or {}
        if complete:
            message = f'ReplicaSet "{name}" has successfully progressed.'
            made = condition("Progressing", holds=True, reason="NewReplicaSetAvailable", message=message)
            since = before.get("lastUpdateTime") if before.get("message") == message else None
            return {**made, "lastUpdateTime": since or timestamp()}, None
        message = f'ReplicaSet "{name}" is progressing.'
        old = obj.get("status") or {}
        moved = (
            any(counts.get(field, 0) > old.get(field, 0) for field in ("updatedReplicas", "readyReplicas"))
            or old.get("observedGeneration") != obj["metadata"]["generation"]
            or before.get("reason") not in {"ReplicaSetUpdated", "ProgressDeadlineExceeded"}
        )
        since = timestamp() if moved else before["lastUpdateTime"]
        left = obj["spec"]["progressDeadlineSeconds"] - seconds_since(since)
        if left <= 0:
            message = f'ReplicaSet "{name}" has timed out progressing.'
            made = condition("Progressing", holds=False, reason="ProgressDeadlineExceeded", message=message)
            return {**made, "lastUpdateTime": since}, None
        made = condition("Progressing", holds=True, reason="ReplicaSetUpdated", message=message)
        return {**made, "lastUpdateTime": since}, left + 1


def _revision(replica_set: Object) -> int:
    return int(annotations_of(replica_set).get(REVISION, "0"))


def _available(replica_set: Object) -> int:
    return min(replica_set["spec"]["replicas"], (replica_set.get("status") or {}).get("availableReplicas", 0))


def _replica_set(obj: Object, version: str, revision: int) -> Object:
    spec, name = obj["spec"], obj["metadata"]["name"]
    template = copy.deepcopy(spec["template"])
    label = {HASH_LABEL: version}
    template.setdefault("metadata", {}).setdefault("labels", {}).update(label)
    selector = copy.deepcopy(spec["selector"])
    selector.setdefault("matchLabels", {}).update(label)
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-{version}",
            "namespace": obj["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {REVISION: str(revision)},
            "ownerReferences": owned_by(obj),
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": spec.get("minReadySeconds") or 0,
            "selector": selector,
            "template": template,
        },
    }
