"""Workloads: the restricted Pod Security Standard, resources, probes and labels.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.policy.rule import Resource, Rule

LONG_RUNNING = frozenset({"kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet"})
JOB = "kubernetes:batch/v1:Job"
CRON_JOB = "kubernetes:batch/v1:CronJob"
WORKLOADS = LONG_RUNNING | {"kubernetes:apps/v1:DaemonSet", JOB, CRON_JOB}
LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by")


def _pod_spec(resource: Resource) -> Mapping[str, Any]:
    spec = resource.properties["spec"]
    if resource.type == CRON_JOB:
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"]


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from pod.get("initContainers") or ()
    yield from pod["containers"]


def _hardened(resource: Resource) -> Iterator[str]:
    pod = _pod_spec(resource)
    of_pod = pod.get("securityContext") or {}
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} shares the node with the pod; leave it out"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the pod gets a token for the Kubernetes API; set automountServiceAccountToken to false"
    for container in _containers(pod):
        own = container.get("securityContext") or {}
        place = f"container {container['name']}"
        if not own.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
            yield f"{place} may run as root; set runAsNonRoot"
        if not own.get("readOnlyRootFilesystem"):
            yield f"{place} can write to its image; set readOnlyRootFilesystem, mount an emptyDir"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{place} can gain privileges; set allowPrivilegeEscalation to false and privileged to none"
        if "ALL" not in (own.get("capabilities") or {}).get("drop", ()):
            yield f"{place} keeps Linux capabilities; drop ALL"
        profile = own.get("seccompProfile") or of_pod.get("seccompProfile") or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{place} has no seccomp profile; set seccompProfile to RuntimeDefault"


def _resources(resource: Resource) -> Iterator[str]:
    for container in _containers(_pod_spec(resource)):
        resources = container.get("resources") or {}
        for kind, name in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            if name not in (resources.get(kind) or {}):
                yield f"container {container['name']} has no {kind}.{name}; set it"


def _probes(resource: Resource) -> Iterator[str]:
    for container in _pod_spec(resource)["containers"]:
        for probe in ("livenessProbe", "readinessProbe"):
            if not container.get(probe):
                yield f"container {container['name']} has no {probe}; give it one"


def _images(resource: Resource) -> Iterator[str]:
    for container in _containers(_pod_spec(resource)):
        image: str = container["image"]
        if "@sha256:" in image:
            continue
        _, separator, tag = image.rpartition("/")[2].partition(":")
        if not separator or tag == "latest":
            yield f"container {container['name']} runs {image}, which can change; name a version or a digest"


def _labels(resource: Resource) -> Iterator[str]:
    labels = (resource.properties.get("metadata") or {}).get("labels") or {}
    missing = [name for name in LABELS if name not in labels]
    if missing:
        yield f"nothing finds it by {', '.join(missing)}; add these labels"


RULES = (
    Rule("workload-hardened", "Pods keep the restricted Pod Security Standard.", WORKLOADS, _hardened),
    Rule("workload-resources", "Containers state what they need.", WORKLOADS, _resources),
    Rule("workload-probes", "Long-running containers are probed.", LONG_RUNNING, _probes),
    Rule("workload-images", "Images are pinned.", WORKLOADS, _images),
    Rule("workload-labels", "Workloads carry the recommended labels.", WORKLOADS, _labels),
)
