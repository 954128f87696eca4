"""ReplicaSets: as many pods of one template as asked for."""

from __future__ import annotations

from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.controllers.pods import from_template, is_active, is_ready
from sandbox.cluster.errors import ApiError
from sandbox.cluster.objects import (
    Object,
    condition,
    is_deleting,
    key_of,
    name_suffix,
    with_transitions,
)


class ReplicaSetController(Controller):
    """Creates and deletes pods."""

    api_version = "apps/v1"
    kind = "ReplicaSet"

    @override
    def reconcile(self, obj: Object) -> float | None:
        if is_deleting(obj):
            return None
        spec, name = obj["spec"], obj["metadata"]["name"]
        pods = self.controlled(obj, "v1", "Pod")
        for pod in pods:
            if not is_active(pod) and not is_deleting(pod):
                self.resources.delete(key_of(pod))
        active = [pod for pod in pods if is_active(pod)]
        wanted = spec["replicas"]
        # The ones that serve go last.
        for pod in sorted(active, key=is_ready)[: max(0, len(active) - wanted)]:
            self.resources.delete(key_of(pod))
        for _ in range(wanted - len(active)):
            self.resources.create(from_template(obj, spec["template"], f"{name}-{name_suffix()}", {}))
        return self._report(obj)

    def _report(self, obj: Object) -> float | None:
        minimum = obj["spec"].get("minReadySeconds") or 0
        active = [pod for pod in self.controlled(obj, "v1", "Pod") if is_active(pod)]
        ready = [pod for pod in active if is_ready(pod)]
        available = [pod for pod in ready if is_ready(pod, minimum)]
        status = {
            "replicas": len(active),
            "fullyLabeledReplicas": len(active),
            "readyReplicas": len(ready),
            "availableReplicas": len(available),
            "observedGeneration": obj["metadata"]["generation"],
        }
        self.store.put_status(key_of(obj), status)
        return 1.0 if len(available) < len(ready) else None

    @override
    def refused(self, obj: Object, error: ApiError) -> None:
        super().refused(obj, error)
        failure = condition("ReplicaFailure", holds=True, reason="FailedCreate", message=str(error))
        old = obj.get("status") or {}
        conditions = with_transitions([failure], old.get("conditions"))
        self.store.put_status(key_of(obj), {"replicas": 0, **old, "conditions": conditions})
