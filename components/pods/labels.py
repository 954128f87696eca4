"""Labels and names that all objects in the cluster share.

https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
"""

from __future__ import annotations

PART_OF = "kilo"
NAME_LABEL = "app.kubernetes.io/name"
PART_OF_LABEL = "app.kubernetes.io/part-of"


def labels(name: str) -> dict[str, str]:
    """The labels of an object that belongs to the workload ``name``."""
    return {NAME_LABEL: name, PART_OF_LABEL: PART_OF, "app.kubernetes.io/managed-by": "pulumi"}


def selector(name: str) -> dict[str, str]:
    """What selects the pods of the workload ``name``; never changes, since Kubernetes forbids it."""
    return {NAME_LABEL: name}


def service_host(name: str, namespace: str) -> str:
    """A Service's full name. Always the full one: it resolves the same in every namespace."""
    return f"{name}.{namespace}.svc.cluster.local"
