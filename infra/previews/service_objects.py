"""The service's own objects, registered as its chart renders them.

What the chart marks as a hook of Helm's before an installation runs here before the new version as well: the
migrations, with their account and their network.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pulumi

from infra.previews.settings import PreviewSettings

_HOOK = "helm.sh/hook"
# Whoever looks at a pull request waits for it; what is not ready by then is told with its log.
_PATIENCE = pulumi.CustomTimeouts(create="3m", update="3m")
_WORKLOADS = frozenset({"Deployment", "CronJob", "Job"})


class ServiceObjects:
    """What a chart rendered, as resources; those that run wait for what they need.

    Args:
        settings: of the preview, with the objects.
        migrations_after: what is there before the service's migrations run.
        workloads_after: what is there before the service itself does.
        seed: fills the tables that the migrations made, before anything of the service runs.
    """

    def __init__(
        self,
        settings: PreviewSettings,
        *,
        migrations_after: Sequence[pulumi.Resource],
        workloads_after: Sequence[pulumi.Resource],
        seed: Callable[[Sequence[pulumi.Resource]], pulumi.Resource] | None = None,
    ) -> None:
        before = [each for each in settings.objects if _is_hook(each)]
        others = [each for each in settings.objects if not _is_hook(each)]
        prepared = [_register(each, migrations_after) for each in before if each["kind"] != "Job"]
        migrations = [
            _register(each, [*migrations_after, *prepared]) for each in before if each["kind"] == "Job"
        ]
        around = [_register(each, migrations_after[:1]) for each in others if each["kind"] not in _WORKLOADS]
        seeded = [seed(migrations or workloads_after)] if seed else []
        ready = [*workloads_after, *migrations, *around, *seeded]
        for each in others:
            if each["kind"] in _WORKLOADS:
                _register(each, ready)
            if each["kind"] == "CronJob":
                _register(_once(each), ready)


def _is_hook(obj: Mapping[str, Any]) -> bool:
    return _HOOK in (obj["metadata"].get("annotations") or {})


def _once(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """A run of a job now: what its schedule would make later."""
    metadata = schedule["metadata"]
    spec = {
        name: value
        for name, value in schedule["spec"]["jobTemplate"]["spec"].items()
        # It stays, to be seen and for the engine, whose own it is.
        if name != "ttlSecondsAfterFinished"
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "name": f"{metadata['name'][:58]}-now"},
        "spec": spec,
    }


def _register(obj: Mapping[str, Any], after: Sequence[pulumi.Resource]) -> pulumi.Resource:
    api_version, kind = obj["apiVersion"], obj["kind"]
    group = api_version if "/" in api_version else f"core/{api_version}"
    metadata = {
        **obj["metadata"],
        # What the policies ask for; Helm's own name in its place would say who deletes it.
        "labels": {**obj["metadata"].get("labels", {}), "app.kubernetes.io/managed-by": "pulumi"},
        # Helm's hooks mean nothing to the engine, which has its own order.
        "annotations": {
            name: value
            for name, value in (obj["metadata"].get("annotations") or {}).items()
            if not name.startswith(_HOOK)
        },
    }
    return pulumi.CustomResource(
        f"kubernetes:{group}:{kind}",
        f"service-{kind}-{metadata['name']}".lower(),
        json.loads(json.dumps({**obj, "metadata": metadata})),
        pulumi.ResourceOptions(
            depends_on=after,
            # A Job can't be changed, only made anew, and its name is fixed.
            delete_before_replace=kind == "Job",
            custom_timeouts=_PATIENCE,
            version=importlib.metadata.version("pulumi-kubernetes"),
        ),
    )
