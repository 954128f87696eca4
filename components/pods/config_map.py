"""The ConfigMap of a workload's files."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_kubernetes import core, meta

from components.pods.labels import labels


def config_map(
    workload: str,
    name: str,
    namespace: str,
    files: Mapping[str, pulumi.Input[str]],
    parent: pulumi.Resource,
    *,
    resource: str | None = None,
) -> core.v1.ConfigMap:
    """The ConfigMap ``name`` with the ``files`` (text by file name) of ``workload``.

    Args:
        workload: whose labels it has.
        name: in the cluster.
        namespace: of the workload.
        files: what is in it; no secret.
        parent: the component that it belongs to.
        resource: its name in the state, where that is not ``name``.
    """
    return core.v1.ConfigMap(
        resource or name,
        metadata=meta.v1.ObjectMetaArgs(name=name, namespace=namespace, labels=labels(workload)),
        data=files,
        opts=pulumi.ResourceOptions(parent=parent),
    )
