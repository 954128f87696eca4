"""What the API server fills in before it stores an object.

Only defaults that others read from the live object are filled in here; every other default lies where
it is used. Names and types: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import base64
import json
from typing import Any

from sandbox.cluster.objects import Object, new_uid


def without_nulls(value: Any) -> Any:
    """A copy without null fields: to the API a null field is an absent one."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def fill(obj: Object, *, namespaced: bool) -> Object:
    """The object with the API server's defaults."""
    metadata = obj.setdefault("metadata", {})
    if namespaced:
        metadata.setdefault("namespace", "default")
    else:
        metadata.pop("namespace", None)
    if filler := _FILLERS.get((obj["apiVersion"], obj["kind"])):
        filler(obj)
    return obj


def _namespace(obj: Object) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name")


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    for name, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")


def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("updateStrategy", {}).setdefault("type", "RollingUpdate")


def _job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completions", 1)
    spec.setdefault("parallelism", 1)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    if "selector" not in spec:
        # The API server picks the label; its value only has to be the Job's alone.
        identity = {"batch.kubernetes.io/controller-uid": new_uid()}
        spec["selector"] = {"matchLabels": identity}
        name = obj["metadata"].get("name", "")
        labels = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
        labels.update({**identity, "batch.kubernetes.io/job-name": name, "job-name": name})


def _cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)


_FILLERS = {
    ("v1", "Namespace"): _namespace,
    ("v1", "Secret"): _secret,
    ("v1", "Service"): _service,
    ("apps/v1", "Deployment"): _deployment,
    ("apps/v1", "StatefulSet"): _stateful_set,
    ("batch/v1", "Job"): _job,
    ("batch/v1", "CronJob"): _cron_job,
}


def fields_of(value: Any) -> Any:
    """The fields that a configuration sets, in the form of managedFields; a list counts as one."""
    if not isinstance(value, dict):
        return {}
    return {f"f:{name}": fields_of(item) for name, item in value.items()}


def apply_over(live: Object, config: Object, manager: str) -> Object:
    """``live`` after ``manager`` applied ``config`` by force, as server-side apply does it.

    What the manager set before and no longer sets goes; what others set stays. A list is taken whole.
    """
    entries = live["metadata"].get("managedFields") or []
    before = next((entry["fieldsV1"] for entry in entries if entry["manager"] == manager), {})
    result: Object = json.loads(json.dumps(live))
    _drop(result, before, fields_of(config))
    _overlay(result, config)
    return result


def managed(obj: Object, config: Object, manager: str, time: str) -> None:
    """Record on ``obj`` what ``manager`` has applied."""
    fields = {
        name: value for name, value in fields_of(config).items() if name not in {"f:apiVersion", "f:kind"}
    }
    entries = [entry for entry in obj["metadata"].get("managedFields") or [] if entry["manager"] != manager]
    old = next((e for e in obj["metadata"].get("managedFields") or [] if e["manager"] == manager), None)
    if old is not None and old["fieldsV1"] == fields:
        return
    entry = {"manager": manager, "operation": "Apply", "apiVersion": obj["apiVersion"], "time": time}
    obj["metadata"]["managedFields"] = [*entries, {**entry, "fieldsType": "FieldsV1", "fieldsV1": fields}]


def _drop(live: Any, before: Any, now: Any) -> None:
    for field, inner in before.items():
        name = field.removeprefix("f:")
        if not isinstance(live, dict) or name not in live:
            continue
        if field not in now:
            if inner and isinstance(live[name], dict):
                _drop(live[name], inner, {})
                if not live[name]:
                    del live[name]
            else:
                del live[name]
        else:
            _drop(live[name], inner, now[field])


def _overlay(live: Any, config: Any) -> None:
    for name, value in config.items():
        if isinstance(value, dict) and isinstance(live.get(name), dict):
            _overlay(live[name], value)
        else:
            live[name] = json.loads(json.dumps(value))
