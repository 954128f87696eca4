"""Which changes of an object take a new one, as the official provider has it.

https://www.pulumi.com/registry/packages/kubernetes/ and the immutable fields of the API itself.
"""

from __future__ import annotations

from collections.abc import Collection

from sandbox.providers.diff import Change

_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
_STATEFUL_SET_MUTABLE = (
    "replicas",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "ordinals",
)
_JOB_MUTABLE = ("suspend", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_IMMUTABLE: dict[str, Collection[str]] = {
    "Deployment": ("spec.selector",),
    "Secret": ("type",),
    "Service": ("spec.clusterIP",),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "PriorityClass": ("value", "preemptionPolicy"),
}
_DATA = {"ConfigMap": ("data", "binaryData", "immutable"), "Secret": ("data", "stringData", "immutable")}


def replaces(kind: str, change: Change, mutable: Collection[str]) -> bool:
    """Whether the change can't be made in place.

    Args:
        kind: of the object.
        change: of one property.
        mutable: kinds whose data the provider is configured to change in place (``ConfigMap``, ``Secret``).
    """
    path = change.path
    if any(_below(path, identity) for identity in (*_IDENTITY, *_IMMUTABLE.get(kind, ()))):
        return True
    if kind not in mutable and any(_below(path, data) for data in _DATA.get(kind, ())):
        return True
    if kind == "StatefulSet":
        return _below(path, "spec") and not any(
            _below(path, f"spec.{name}") for name in _STATEFUL_SET_MUTABLE
        )
    if kind == "Job":
        return _below(path, "spec") and not any(_below(path, f"spec.{name}") for name in _JOB_MUTABLE)
    if kind == "PersistentVolumeClaim":
        return _below(path, "spec") and not _below(path, "spec.resources")
    return False


def _below(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith((f"{ancestor}.", f"{ancestor}["))
