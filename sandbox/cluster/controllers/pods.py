"""What workload controllers do with pods: make one from a template, tell a ready one, count them."""

from __future__ import annotations

import copy
import hashlib
import json

from sandbox.cluster.objects import Object, find_condition, holds, is_deleting, owned_by, seconds_since

FINAL = ("Succeeded", "Failed")


def from_template(owner: Object, template: Object, name: str, labels: dict[str, str]) -> Object:
    """A pod that ``owner`` controls."""
    template = copy.deepcopy(template)
    metadata = template.get("metadata") or {}
    made = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(metadata.get("labels") or {}), **labels},
        "ownerReferences": owned_by(owner),
    }
    if metadata.get("annotations"):
        made["annotations"] = metadata["annotations"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}


def template_hash(template: Object) -> str:
    """What tells one version of a template from another."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def is_ready(pod: Object, minimum_seconds: int = 0) -> bool:
    """Whether the pod is ready and has been for ``minimum_seconds``."""
    if is_deleting(pod) or not holds(pod, "Ready"):
        return False
    found = find_condition(pod, "Ready")
    return minimum_seconds == 0 or (
        found is not None and seconds_since(found["lastTransitionTime"]) >= minimum_seconds
    )


def is_active(pod: Object) -> bool:
    """Whether the pod runs or will run."""
    return not is_deleting(pod) and (pod.get("status") or {}).get("phase") not in FINAL
