"""The API server's rules beyond fields and types: names, references, quantities, what can't change.

Every failure of an object is found at once. Sources: the validation that the API reference describes for
each field, https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from croniter import croniter

from sandbox.cluster import podspec
from sandbox.cluster.errors import Cause
from sandbox.cluster.kinds import Kind
from sandbox.cluster.objects import Object, selects
from sandbox.cluster.quantities import is_quantity, quantity

_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_RFC_1123 = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_RFC_1123_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', start and end "
    "with an alphanumeric character, and have at most 63 characters"
)
# Kinds whose names become parts of DNS names or labels.
_LABEL_KINDS = {"Namespace", "Service", "StatefulSet", "Job", "CronJob"}
_MAXIMUM_NAME = {"CronJob": 52, "Job": 63, "StatefulSet": 63}
_MEBIBYTE = 1024 * 1024

Causes = Iterator[Cause]


def wrong(path: str, value: object, why: str) -> Cause:
    """An invalid value, in the API server's words."""
    return Cause(path, f"Invalid value: {json.dumps(value)}: {why}")


def check(kind: Kind, obj: Object) -> list[Cause]:
    """All that is wrong with a new object."""
    found = list(_metadata(kind, obj.get("metadata") or {}))
    if checker := _CHECKS.get(kind.kind):
        found += checker(obj)
    return found


def check_update(kind: Kind, old: Object, new: Object) -> list[Cause]:
    """All that is wrong with replacing ``old`` by ``new``."""
    found: list[Cause] = []
    if (kind.kind in {"ConfigMap", "Secret"} and old.get("immutable")) and any(
        old.get(name) != new.get(name) for name in ("data", "binaryData", "immutable")
    ):
        found.append(
            Cause("data", "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")
        )
    for path in _IMMUTABLE.get(kind.kind, ()):
        before, after = _at(old, path), _at(new, path)
        if before is not None and before != after:
            found.append(wrong(path, after, "field is immutable"))
    if kind.kind == "StatefulSet":
        found += _stateful_set_update(old["spec"], new["spec"])
    if kind.kind == "PersistentVolumeClaim":
        found += _claim_update(old["spec"], new["spec"])
    return found


_IMMUTABLE = {
    "Deployment": ("spec.selector",),
    "ReplicaSet": ("spec.selector",),
    "Job": ("spec.selector", "spec.template", "spec.completions", "spec.completionMode"),
    "Secret": ("type",),
    "Service": ("spec.clusterIP",),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.storageClassName",
        "spec.selector",
        "spec.volumeName",
    ),
    "PriorityClass": ("value",),
}
_STATEFUL_SET_MUTABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revisionHistoryLimit",
}


def _stateful_set_update(old: Object, new: Object) -> Causes:
    changed = [n for n in {*old, *new} if n not in _STATEFUL_SET_MUTABLE and old.get(n) != new.get(n)]
    if changed:
        allowed = ", ".join(f"'{name}'" for name in sorted(_STATEFUL_SET_MUTABLE))
        reason = f"Forbidden: updates to statefulset spec for fields other than {allowed} are forbidden"
        yield Cause("spec", f"{reason} (changed: {', '.join(sorted(changed))})", "FieldValueForbidden")


def _claim_update(old: Object, new: Object) -> Causes:
    path = "resources.requests.storage"
    before, after = _at(old, path), _at(new, path)
    if is_quantity(before) and is_quantity(after) and quantity(str(after)) < quantity(str(before)):
        reason = "Forbidden: field can not be less than status.capacity"
        yield Cause(f"spec.{path}", reason, "FieldValueForbidden")


def _at(obj: Any, path: str) -> Any:
    for name in path.split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _metadata(kind: Kind, metadata: Object) -> Causes:
    name = metadata.get("name")
    if not name:
        yield Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
    elif kind.kind in _LABEL_KINDS and not _LABEL_NAME.fullmatch(name):
        yield wrong("metadata.name", name, _RFC_1123_LABEL)
    elif len(name) > 253 or not (_SUBDOMAIN.fullmatch(name) or kind.kind.endswith(("Role", "RoleBinding"))):
        yield wrong("metadata.name", name, _RFC_1123)
    elif len(name) > _MAXIMUM_NAME.get(kind.kind, 253):
        yield wrong("metadata.name", name, f"must be no more than {_MAXIMUM_NAME[kind.kind]} characters")
    yield from _labels(metadata.get("labels") or {}, "metadata.labels")
    for annotation in metadata.get("annotations") or {}:
        yield from _qualified(annotation, "metadata.annotations")


def _labels(labels: dict[str, Any], path: str) -> Causes:
    for name, value in labels.items():
        yield from _qualified(name, path)
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            why = "a valid label must be empty or at most 63 alphanumeric characters, '-', '_' or '.'"
            yield wrong(f"{path}.{name}", value, why)


def _qualified(name: str, path: str) -> Causes:
    prefix, _, last = name.rpartition("/")
    if not _QUALIFIED.fullmatch(last) or (prefix and not _SUBDOMAIN.fullmatch(prefix)):
        yield wrong(
            path,
            name,
            "name must be a qualified name: an optional DNS subdomain and '/', then at most 63 characters",
        )


def _config_map(obj: Object) -> Causes:
    total = 0
    for field in ("data", "binaryData"):
        for name, value in (obj.get(field) or {}).items():
            if not _CONFIG_KEY.fullmatch(name) or len(name) > 253:
                yield wrong(
                    f"{field}[{name}]",
                    name,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                )
            total += len(str(value).encode())
    if both := sorted(set(obj.get("data") or {}) & set(obj.get("binaryData") or {})):
        yield wrong("data", both, "duplicate of key present in binaryData")
    if total > _MEBIBYTE:
        yield Cause(
            "", f"Too long: must have at most {_MEBIBYTE} bytes, and has {total}", "FieldValueTooLong"
        )


_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/basic-auth": (),
}


def _secret(obj: Object) -> Causes:
    yield from _config_map(obj)
    for name in _SECRET_KEYS.get(obj.get("type", ""), ()):
        if name not in (obj.get("data") or {}):
            yield Cause(f"data[{name}]", "Required value", "FieldValueRequired")


def _service(obj: Object) -> Causes:
    spec = obj["spec"]
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield Cause("spec.ports", "Required value", "FieldValueRequired")
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield Cause("spec.externalName", "Required value", "FieldValueRequired")
    seen: set[tuple[object, object]] = set()
    names: set[str] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name")
        if len(ports) > 1 and not name:
            yield Cause(f"{path}.name", "Required value", "FieldValueRequired")
        if name in names:
            yield Cause(f"{path}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate")
        names.add(name or "")
        yield from podspec.port_number(port.get("port"), f"{path}.port")
        yield from podspec.port_reference(port.get("targetPort"), f"{path}.targetPort")
        pair = (port.get("protocol", "TCP"), port.get("port"))
        if pair in seen:
            yield Cause(
                path,
                f"Duplicate value: {json.dumps({'port': pair[1], 'protocol': pair[0]})}",
                "FieldValueDuplicate",
            )
        seen.add(pair)


def _selecting(obj: Object) -> Causes:
    spec = obj["spec"]
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    selector = spec.get("selector") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield wrong("spec.selector", selector, "empty selector is invalid for workloads")
    elif not selects(selector, labels):
        yield wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if (spec.get("replicas") or 0) < 0:
        yield wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    claims = spec.get("volumeClaimTemplates") or ()
    yield from _template(template, "spec.template", restart=("Always",), claims=claims)


def _deployment(obj: Object) -> Causes:
    yield from _selecting(obj)
    rolling = (obj["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    if obj["spec"].get("strategy", {}).get("type") == "Recreate" and rolling:
        yield Cause(
            "spec.strategy.rollingUpdate",
            "Forbidden: may not be specified when strategy `type` is 'Recreate'",
        )
    if rolling.get("maxSurge") in {0, "0%"} and rolling.get("maxUnavailable") in {0, "0%"}:
        yield wrong("spec.strategy.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def _stateful_set(obj: Object) -> Causes:
    yield from _selecting(obj)
    for index, claim in enumerate(obj["spec"].get("volumeClaimTemplates") or ()):
        yield from _claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")


def _claim(obj: Object) -> Causes:
    yield from _claim_spec(obj["spec"], "spec")


def _claim_spec(spec: Object, path: str) -> Causes:
    modes = spec.get("accessModes")
    allowed = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
    if not modes:
        yield Cause(
            f"{path}.accessModes", "Required value: at least 1 access mode is required", "FieldValueRequired"
        )
    elif set(modes) - allowed:
        yield wrong(f"{path}.accessModes", modes, f"supported values: {', '.join(sorted(allowed))}")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield Cause(f"{path}.resources.requests[storage]", "Required value", "FieldValueRequired")
    elif not is_quantity(storage):
        yield wrong(f"{path}.resources.requests[storage]", storage, "must be a quantity such as 10Gi")


# Silence about these would be a Job that does something else than on a real cluster.
_JOB_MISSING = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")


def _job(obj: Object) -> Causes:
    yield from _job_spec(obj["spec"], "spec")


def _job_spec(spec: Object, path: str) -> Causes:
    numbers = (
        "backoffLimit",
        "activeDeadlineSeconds",
        "completions",
        "parallelism",
        "ttlSecondsAfterFinished",
    )
    for name in numbers:
        if (spec.get(name) or 0) < 0:
            yield wrong(f"{path}.{name}", spec[name], "must be greater than or equal to 0")
    for name in _JOB_MISSING:
        if spec.get(name) is not None:
            yield Cause(f"{path}.{name}", "the sandbox's Jobs do not have this", "FieldValueNotSupported")
    if spec.get("completionMode") == "Indexed":
        yield wrong(f"{path}.completionMode", "Indexed", "the sandbox has no indexed Jobs")
    yield from _template(spec.get("template") or {}, f"{path}.template", restart=("OnFailure", "Never"))


def _cron_job(obj: Object) -> Causes:
    spec = obj["spec"]
    schedule = spec.get("schedule") or ""
    if not croniter.is_valid(schedule) or len(schedule.split()) not in {1, 5}:
        yield wrong(
            "spec.schedule", schedule, "must be five cron fields: minute hour day-of-month month day-of-week"
        )
    if spec.get("timeZone") is not None and not podspec.is_time_zone(spec["timeZone"]):
        yield wrong("spec.timeZone", spec["timeZone"], f"unknown time zone {spec['timeZone']}")
    if spec.get("concurrencyPolicy") not in {None, "Allow", "Forbid", "Replace"}:
        yield wrong(
            "spec.concurrencyPolicy", spec["concurrencyPolicy"], "supported values: Allow, Forbid, Replace"
        )
    yield from _job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")


def _pod(obj: Object) -> Causes:
    yield from podspec.check(obj["spec"], "spec", ("Always", "OnFailure", "Never"))


def _template(
    template: Object, path: str, *, restart: Iterable[str], claims: Iterable[Object] = ()
) -> Causes:
    metadata = template.get("metadata") or {}
    yield from _labels(metadata.get("labels") or {}, f"{path}.metadata.labels")
    claimed = [claim["metadata"]["name"] for claim in claims]
    yield from podspec.check(template.get("spec") or {}, f"{path}.spec", tuple(restart), claimed)


def _disruption_budget(obj: Object) -> Causes:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield wrong(
            "spec",
            {k: spec[k] for k in ("minAvailable", "maxUnavailable")},
            "minAvailable and maxUnavailable cannot be both set",
        )


def _network_policy(obj: Object) -> Causes:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate((obj.get("spec") or {}).get(direction) or ()):
            for place, peer in enumerate(rule.get(peers) or ()):
                path = f"spec.{direction}[{index}].{peers}[{place}]"
                if not any(
                    peer.get(name) is not None for name in ("podSelector", "namespaceSelector", "ipBlock")
                ):
                    yield Cause(path, "Required value: must specify a peer", "FieldValueRequired")
                if peer.get("ipBlock") and (peer.get("podSelector") or peer.get("namespaceSelector")):
                    yield Cause(
                        path, "Forbidden: may not specify more than 1 peer type", "FieldValueForbidden"
                    )
            for place, port in enumerate(rule.get("ports") or ()):
                yield from podspec.port_reference(
                    port.get("port"), f"spec.{direction}[{index}].ports[{place}].port"
                )


def _role_binding(obj: Object) -> Causes:
    reference = obj.get("roleRef") or {}
    if reference.get("kind") not in {"Role", "ClusterRole"}:
        yield wrong("roleRef.kind", reference.get("kind"), "supported values: Role, ClusterRole")


_CHECKS: dict[str, Callable[[Object], Iterable[Cause]]] = {
    "ConfigMap": _config_map,
    "Secret": _secret,
    "Service": _service,
    "Deployment": _deployment,
    "ReplicaSet": _selecting,
    "StatefulSet": _stateful_set,
    "PersistentVolumeClaim": _claim,
    "Job": _job,
    "CronJob": _cron_job,
    "Pod": _pod,
    "PodDisruptionBudget": _disruption_budget,
    "NetworkPolicy": _network_policy,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
}
