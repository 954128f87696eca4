"""StatefulSets: pods with a name and a disk of their own each.

Pods are replaced one at a time from the highest ordinal down, each ready before the next one stops;
created in order too, unless the management policy is Parallel. Disks outlive pods and sets.
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
"""

from __future__ import annotations

import copy

from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.controllers.pods import from_template, is_active, is_ready, template_hash
from sandbox.cluster.objects import Key, Object, is_deleting, key_of, labels_of

REVISION_LABEL = "controller-revision-hash"
NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


class StatefulSetController(Controller):
    """Creates, replaces and removes pods in order."""

    api_version = "apps/v1"
    kind = "StatefulSet"

    @override
    def reconcile(self, obj: Object) -> float | None:
        if is_deleting(obj):
            return None
        revision = f"{obj['metadata']['name']}-{template_hash(obj['spec']['template'])}"
        self._step(obj, revision)
        return self._report(obj, revision)

    def _step(self, obj: Object, revision: str) -> None:
        spec, metadata = obj["spec"], obj["metadata"]
        pods = {pod["metadata"]["name"]: pod for pod in self.controlled(obj, "v1", "Pod")}
        first = (spec.get("ordinals") or {}).get("start") or 0
        names = [f"{metadata['name']}-{number}" for number in range(first, first + spec["replicas"])]
        in_order = spec["podManagementPolicy"] == "OrderedReady"
        for number, name in enumerate(names, start=first):
            pod = pods.get(name)
            if pod is None:
                self._create(obj, name, number, revision)
                if in_order:
                    return
            elif not is_active(pod) and not is_deleting(pod):
                self.resources.delete(key_of(pod))
                return
            elif in_order and not is_ready(pod, spec.get("minReadySeconds") or 0):
                # A broken pod of an old revision may be replaced without waiting for it.
                if labels_of(pod).get(REVISION_LABEL) != revision and not is_deleting(pod):
                    break
                return
        extra = sorted((n for n in pods if n not in names), key=lambda n: -int(n.rpartition("-")[2]))
        for name in extra:
            if not is_deleting(pods[name]):
                self.resources.delete(key_of(pods[name]))
            if in_order:
                return
        if spec["updateStrategy"]["type"] == "RollingUpdate":
            self._update(obj, [pods[name] for name in reversed(names) if name in pods], revision)

    def _update(self, obj: Object, pods: list[Object], revision: str) -> None:
        partition = (obj["spec"]["updateStrategy"].get("rollingUpdate") or {}).get("partition") or 0
        for pod in pods:
            outdated = labels_of(pod).get(REVISION_LABEL) != revision
            if int(labels_of(pod)[INDEX_LABEL]) < partition:
                return
            if is_deleting(pod):
                return
            if outdated:
                self.resources.delete(key_of(pod))
                return
            if not is_ready(pod, obj["spec"].get("minReadySeconds") or 0):
                return

    def _create(self, obj: Object, name: str, number: int, revision: str) -> None:
        labels = {REVISION_LABEL: revision, NAME_LABEL: name, INDEX_LABEL: str(number)}
        pod = from_template(obj, obj["spec"]["template"], name, labels)
        pod["spec"]["hostname"], pod["spec"]["subdomain"] = name, obj["spec"].get("serviceName") or ""
        volumes = [v for v in pod["spec"].get("volumes") or () if v["name"] not in _claim_names(obj)]
        for template in obj["spec"].get("volumeClaimTemplates") or ():
            claim = f"{template['metadata']['name']}-{name}"
            self._claim(obj, template, claim)
            volumes.append(
                {"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}}
            )
        pod["spec"]["volumes"] = volumes
        self.resources.create(pod)

    def _claim(self, obj: Object, template: Object, name: str) -> None:
        namespace = obj["metadata"]["namespace"]
        if self.store.get(Key("v1", "PersistentVolumeClaim", namespace, name)):
            return
        claim = copy.deepcopy(template)
        claim.update({"apiVersion": "v1", "kind": "PersistentVolumeClaim"})
        claim["metadata"].update({"name": name, "namespace": namespace})
        claim.pop("status", None)
        self.resources.create(claim)

    def _report(self, obj: Object, revision: str) -> float | None:
        minimum = obj["spec"].get("minReadySeconds") or 0
        pods = [pod for pod in self.controlled(obj, "v1", "Pod") if is_active(pod)]
        updated = [pod for pod in pods if labels_of(pod).get(REVISION_LABEL) == revision]
        ready = [pod for pod in pods if is_ready(pod)]
        available = [pod for pod in ready if is_ready(pod, minimum)]
        old = obj.get("status") or {}
        done = len(updated) == len(pods) == obj["spec"]["replicas"] == len(available)
        status = {
            "replicas": len(pods),
            "readyReplicas": len(ready),
            "availableReplicas": len(available),
            "updatedReplicas": len(updated),
            "currentReplicas": len(updated) if done else len(pods) - len(updated),
            "updateRevision": revision,
            "currentRevision": revision if done else old.get("currentRevision", revision),
            "observedGeneration": obj["metadata"]["generation"],
            "collisionCount": 0,
        }
        self.store.put_status(key_of(obj), status)
        return 1.0 if len(available) < len(ready) else None


class ClaimController(Controller):
    """PersistentVolumeClaims: bound at once, each to a directory."""

    api_version = "v1"
    kind = "PersistentVolumeClaim"

    @override
    def reconcile(self, obj: Object) -> float | None:
        requests = obj["spec"]["resources"]["requests"]
        status = {"phase": "Bound", "accessModes": obj["spec"]["accessModes"], "capacity": requests}
        self.store.put_status(key_of(obj), status)
        return None


def _claim_names(obj: Object) -> set[str]:
    return {template["metadata"]["name"] for template in obj["spec"].get("volumeClaimTemplates") or ()}
