"""What the API server refuses, and in which words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sandbox import toolchain
from sandbox.cluster.addresses import Addresses
from sandbox.cluster.errors import ApiError
from sandbox.cluster.objects import Object
from sandbox.cluster.resources import Resources
from sandbox.cluster.schemas import Schemas
from sandbox.cluster.store import Store
from tests.sandbox.cluster.support import NAMESPACE, container, deployment, job, named, server, template


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas(toolchain.path("crds"))


@pytest.fixture
def resources(tmp_path: Path, schemas: Schemas) -> Resources:
    made = Resources(Store(tmp_path / "objects"), schemas, Addresses(tmp_path / "addresses.json"))
    made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, manager="test")
    return made


def service(**spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return named("Service", "web", spec={"selector": {"app": "web"}, "ports": ports, **spec})


def stateful_set(**spec: Any) -> Object:
    labels = {"app": "db"}
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    main = server(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    made = {
        "serviceName": "db",
        "selector": {"matchLabels": dict(labels)},
        "template": template(main, labels),
        "volumeClaimTemplates": [claim],
        **spec,
    }
    return named("StatefulSet", "db", spec=made)


def cron_job(**spec: Any) -> Object:
    return named(
        "CronJob",
        "tidy",
        spec={"schedule": "0 * * * *", "jobTemplate": {"spec": job("j", "")["spec"]}, **spec},
    )


def monitor(**spec: Any) -> Object:
    made = named(
        "PodMonitor", "all", spec={"selector": {}, "podMetricsEndpoints": [{"port": "http"}], **spec}
    )
    return {**made, "apiVersion": "monitoring.coreos.com/v1"}


VALID: list[Object] = [
    named("ConfigMap", "settings", data={"a.txt": "1"}),
    named("Secret", "keys", stringData={"password": "x"}),
    service(),
    service(clusterIP="None"),
    deployment("web", server()),
    stateful_set(),
    job("migrate", "pass"),
    cron_job(timeZone="Europe/Berlin"),
    named("ServiceAccount", "web"),
    named("PersistentVolumeClaim", "disk", spec=stateful_set()["spec"]["volumeClaimTemplates"][0]["spec"]),
    monitor(),
    {
        **named(
            "PodDisruptionBudget",
            "web",
            spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        ),
        "apiVersion": "policy/v1",
    },
    {
        **named("NetworkPolicy", "web", spec={"podSelector": {}, "policyTypes": ["Ingress"]}),
        "apiVersion": "networking.k8s.io/v1",
    },
]


@pytest.mark.parametrize("obj", VALID, ids=lambda obj: obj["kind"])
def test_a_valid_object_is_stored_and_applying_it_again_changes_nothing(
    resources: Resources, obj: Object
) -> None:
    first = resources.apply(copy.deepcopy(obj), manager="test")
    second = resources.apply(copy.deepcopy(obj), manager="test")
    assert first["metadata"]["uid"]
    assert second == first


def at(obj: Object, path: str, value: Any) -> Object:
    """A copy of ``obj`` with ``value`` at a dotted path, numbers being places in lists; None removes."""
    made = copy.deepcopy(obj)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = made
    for part in way:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


WEB = deployment("web", server())
MAIN = "spec.template.spec.containers.0"

INVALID: list[tuple[str, Object, int, str]] = [
    (
        "unknown kind",
        {**named("Widget", "w"), "apiVersion": "v1"},
        404,
        'no matches for kind "Widget" in version "v1"',
    ),
    (
        "old version",
        {**named("CronJob", "c"), "apiVersion": "batch/v1beta1"},
        404,
        "it is served as batch/v1",
    ),
    (
        "unknown field",
        at(WEB, f"{MAIN}.imag", "x"),
        400,
        'unknown field "spec.template.spec.containers[0].imag"',
    ),
    ("unknown field on top", at(WEB, "specs", {}), 400, 'unknown field "specs"'),
    ("misspelt in a probe", at(WEB, f"{MAIN}.readinessProbe.httpget", {}), 400, 'readinessProbe.httpget"'),
    ("wrong type", at(WEB, "spec.replicas", "2"), 422, "spec.replicas: Invalid value"),
    ("missing namespace", at(WEB, "metadata.namespace", "nowhere"), 404, 'namespaces "nowhere" not found'),
    ("upper case name", at(WEB, "metadata.name", "Web"), 422, "lowercase RFC 1123 subdomain"),
    ("underscore in a service", at(service(), "metadata.name", "a_b"), 422, "RFC 1123 label"),
    ("no name", at(WEB, "metadata.name", ""), 422, "metadata.name: Required value"),
    ("long name", at(cron_job(), "metadata.name", "x" * 53), 422, "no more than 52 characters"),
    ("label value", at(WEB, "metadata.labels", {"a": "b c"}), 422, "metadata.labels.a"),
    ("label name", at(WEB, "metadata.labels", {"a b": "c"}), 422, "qualified name"),
    (
        "selector",
        at(WEB, "spec.selector.matchLabels.app", "x"),
        422,
        "`selector` does not match template `labels`",
    ),
    ("empty selector", at(WEB, "spec.selector", {}), 422, "empty selector is invalid"),
    ("negative replicas", at(WEB, "spec.replicas", -1), 422, "greater than or equal to 0"),
    (
        "restart policy",
        at(WEB, "spec.template.spec.restartPolicy", "Never"),
        422,
        'supported values: "Always"',
    ),
    ("no container", at(WEB, "spec.template.spec.containers", []), 422, "spec.template.spec.containers"),
    ("no image", at(WEB, f"{MAIN}.image", ""), 422, "containers[0].image: Required value"),
    ("container name", at(WEB, f"{MAIN}.name", "Main"), 422, "containers[0].name"),
    ("two of a name", at(WEB, "spec.template.spec.containers", [server(), server()]), 422, "Duplicate value"),
    ("port", at(WEB, f"{MAIN}.ports.0.containerPort", 70000), 422, "between 1 and 65535"),
    ("port name", at(WEB, f"{MAIN}.ports.0.name", "much-too-long-a-name"), 422, "at most 15"),
    (
        "probe port",
        at(WEB, f"{MAIN}.readinessProbe.httpGet.port", "https"),
        422,
        'no container port is named "https"',
    ),
    (
        "probe without handler",
        at(WEB, f"{MAIN}.livenessProbe", {"periodSeconds": 1}),
        422,
        "exactly one handler",
    ),
    ("probe period", at(WEB, f"{MAIN}.readinessProbe.periodSeconds", 0), 422, "greater than or equal to 1"),
    ("environment name", at(WEB, f"{MAIN}.env.0.name", "A=B"), 422, "env[0].name"),
    ("value and source", at(WEB, f"{MAIN}.env.0.value", "x"), 422, "may not be specified when `value`"),
    ("field path", at(WEB, f"{MAIN}.env.0.valueFrom.fieldRef.fieldPath", "status.ip"), 422, "fieldPath"),
    (
        "quantity",
        at(WEB, f"{MAIN}.resources", {"limits": {"memory": "64MB"}}),
        422,
        "resources.limits.memory",
    ),
    (
        "unknown volume",
        at(WEB, f"{MAIN}.volumeMounts", [{"name": "x", "mountPath": "/x"}]),
        422,
        'Not found: "x"',
    ),
    (
        "relative mount",
        at(stateful_set(), f"{MAIN}.volumeMounts.0.mountPath", "data"),
        422,
        "must be an absolute path",
    ),
    (
        "no surge at all",
        at(WEB, "spec.strategy.rollingUpdate.maxSurge", 0),
        422,
        "may not be 0 when `maxSurge` is 0",
    ),
    (
        "port twice",
        at(service(), "spec.ports", [{"name": n, "port": 80} for n in "ab"]),
        422,
        "Duplicate value",
    ),
    (
        "unnamed ports",
        at(service(), "spec.ports", [{"port": 1}, {"port": 2}]),
        422,
        "spec.ports[0].name: Required",
    ),
    ("no ports", at(service(), "spec.ports", []), 422, "spec.ports: Required value"),
    ("schedule", at(cron_job(), "spec.schedule", "61 * * * *"), 422, "must be five cron fields"),
    ("six fields", at(cron_job(), "spec.schedule", "0 0 * * * *"), 422, "must be five cron fields"),
    ("time zone", at(cron_job(), "spec.timeZone", "Mars/Base"), 422, "unknown time zone"),
    ("concurrency", at(cron_job(), "spec.concurrencyPolicy", "Maybe"), 422, "concurrencyPolicy"),
    ("job restarts", job("j", "", restart="Always"), 422, 'supported values: "OnFailure", "Never"'),
    ("indexed job", job("j", "", completionMode="Indexed"), 422, "the sandbox has no indexed Jobs"),
    ("failure policy", job("j", "", podFailurePolicy={"rules": []}), 422, "podFailurePolicy"),
    ("config key", named("ConfigMap", "c", data={"a/b": "x"}), 422, "valid config key"),
    ("too large", named("ConfigMap", "c", data={"a": "x" * 1_100_000}), 422, "Too long"),
    ("tls secret", named("Secret", "s", type="kubernetes.io/tls", data={}), 422, "data[tls.crt]: Required"),
    (
        "claim without size",
        named("PersistentVolumeClaim", "p", spec={"accessModes": ["ReadWriteOnce"]}),
        422,
        "storage",
    ),
    (
        "custom field",
        at(monitor(), "spec.podMetricEndpoints", []),
        400,
        'unknown field "spec.podMetricEndpoints"',
    ),
    ("custom type", at(monitor(), "spec.podMetricsEndpoints", "x"), 422, "spec.podMetricsEndpoints"),
]


@pytest.mark.parametrize(
    ("obj", "code", "words"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID]
)
def test_an_invalid_object_is_refused_with_its_field(
    resources: Resources, obj: Object, code: int, words: str
) -> None:
    before = resources.store.all_keys()
    with pytest.raises(ApiError) as refused:
        resources.apply(obj, manager="test")
    status = refused.value.status()
    assert status["code"] == code
    assert words in status["message"]
    assert status["kind"] == "Status"
    assert resources.store.all_keys() == before


def test_all_mistakes_are_named_at_once(resources: Resources) -> None:
    wrong = at(at(WEB, f"{MAIN}.ports.0.containerPort", 0), f"{MAIN}.env.0.name", "=")
    with pytest.raises(ApiError) as refused:
        resources.apply(wrong, manager="test")
    assert "ports[0].containerPort" in str(refused.value)
    assert "env[0].name" in str(refused.value)


IMMUTABLE: list[tuple[Object, str, Any, str]] = [
    (WEB, "spec.selector.matchLabels", {"app": "web", "tier": "x"}, "spec.selector"),
    (service(), "spec.clusterIP", "127.96.9.9", "spec.clusterIP"),
    (stateful_set(), "spec.serviceName", "other", "serviceName"),
    (job("j", "1"), "spec.template.spec.containers.0.args", ["-c", "2"], "spec.template"),
    (named("Secret", "s", type="Opaque"), "type", "example.com/other", "type"),
    (named("ConfigMap", "c", immutable=True, data={"a": "1"}), "data.a", "2", "immutable"),
    (
        named("PersistentVolumeClaim", "p", spec=stateful_set()["spec"]["volumeClaimTemplates"][0]["spec"]),
        "spec.accessModes",
        ["ReadWriteMany"],
        "spec.accessModes",
    ),
    (
        named("PersistentVolumeClaim", "p", spec=stateful_set()["spec"]["volumeClaimTemplates"][0]["spec"]),
        "spec.resources.requests.storage",
        "1Mi",
        "can not be less than",
    ),
]


@pytest.mark.parametrize(("obj", "path", "value", "words"), IMMUTABLE, ids=[row[1] for row in IMMUTABLE])
def test_what_can_not_change_is_refused(
    resources: Resources, obj: Object, path: str, value: Any, words: str
) -> None:
    stored = resources.apply(copy.deepcopy(obj), manager="test")
    changed = at(obj, path, value)
    if path.startswith("spec.selector"):
        changed["spec"]["template"]["metadata"]["labels"] = {"app": "web", "tier": "x"}
    with pytest.raises(ApiError, match=r"immutable|[Ff]orbidden") as refused:
        resources.apply(changed, manager="test")
    assert words in str(refused.value)
    assert refused.value.code == 422
    assert resources.apply(copy.deepcopy(obj), manager="test") == stored


def test_a_pod_of_an_unknown_service_account_is_refused(resources: Resources) -> None:
    pod = named("Pod", "p", spec={"serviceAccountName": "nobody", "containers": [container("-V")]})
    with pytest.raises(ApiError, match='serviceaccount "nobody" not found') as refused:
        resources.create(pod)
    assert refused.value.code == 403


def test_a_namespace_that_is_being_deleted_takes_nothing_new(resources: Resources) -> None:
    resources.delete(next(key for key in resources.store.all_keys() if key.kind == "Namespace"))
    with pytest.raises(ApiError, match="is being terminated"):
        resources.apply(named("ConfigMap", "c", data={}), manager="test")
