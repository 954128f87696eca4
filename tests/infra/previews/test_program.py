"""What a preview's stack registers: all of it in one namespace, nothing in a cloud, secrets kept secret."""

from __future__ import annotations

from typing import Any

from infra.previews.program import deploy
from kilo.contract import StackOutputs
from tests.components.recorder import SECRETS, Recording, record
from tests.infra.previews.support import settings

NAMESPACE = "preview-pr-12-orders"


def job(name: str, **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {}}}


OBJECTS = [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": NAMESPACE}},
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "orders", "namespace": NAMESPACE}},
    job("orders-migrate", **{"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-weight": "0"}),
]


def recorded(**changes: Any) -> Recording:
    made = settings(objects=OBJECTS, seed="SELECT 1;", **changes)
    return record(lambda: deploy(made), stack=made.stack)


def test_all_of_it_lies_in_its_namespace_and_nothing_in_a_cloud() -> None:
    recording = recorded()
    kubernetes = [each for each in recording.resources if each.type.startswith("kubernetes:")]
    (namespace,) = recording.of("kubernetes:core/v1:Namespace")
    assert namespace.inputs["metadata"]["name"] == NAMESPACE
    assert namespace.inputs["metadata"]["annotations"] == {"kilo.dev/expires-at": "2026-03-01T09:00:00Z"}
    assert {each.inputs["metadata"].get("namespace") for each in kubernetes} == {None, NAMESPACE}
    others = {each.type.partition(":")[0] for each in recording.resources} - {"kubernetes", "kilo", "pulumi"}
    assert others == {"random"}
    assert not [each for each in recording.resources if each.protect or each.retain_on_delete]


def test_a_ceiling_a_limit_and_a_closed_network_stand_around_it() -> None:
    recording = recorded()
    (quota,) = recording.of("kubernetes:core/v1:ResourceQuota")
    assert {"requests.cpu", "limits.memory", "pods", "services.loadbalancers"} <= quota.inputs["spec"][
        "hard"
    ].keys()
    (limits,) = recording.of("kubernetes:core/v1:LimitRange")
    assert limits.inputs["spec"]["limits"][0]["default"]
    closed = recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "pr-12-orders")
    assert closed.inputs["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_its_outputs_keep_the_contract_and_lead_nowhere_outside() -> None:
    recording = recorded()
    config = recording.one("kubernetes:core/v1:ConfigMap", "pr-12-orders").inputs["data"]["outputs.json"]
    outputs = StackOutputs.model_validate_json(config)
    assert list(outputs.tenants) == ["preview"]
    assert outputs.bus.subject_prefix == "pr-12-orders"
    assert outputs.backups.primary.bucket == outputs.audit.bucket == "nowhere.invalid"
    assert NAMESPACE in outputs.database.host
    assert NAMESPACE in outputs.gateway.url


def test_migrations_run_before_the_service_and_hooks_of_helm_mean_nothing() -> None:
    recording = recorded()
    migrate = recording.one("kubernetes:batch/v1:Job", "service-job-orders-migrate")
    assert migrate.inputs["metadata"]["annotations"] == {}
    assert migrate.inputs["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "pulumi"
    deployment = recording.one("kubernetes:apps/v1:Deployment", "service-deployment-orders")
    assert deployment.inputs["metadata"]["name"] == "orders"


def test_no_secret_is_in_what_the_stack_says_of_it() -> None:
    recording = recorded()
    secrets = recording.of("kubernetes:core/v1:Secret")
    names = {each.inputs["metadata"]["name"] for each in secrets}
    assert names >= {"orders-database", "orders-database-owner", "postgres-passwords"}
    assert all("stringData" in each.secret_inputs for each in secrets)
    shown = str([each.inputs for each in recording.resources if each.type != secrets[0].type])
    assert [secret for secret in SECRETS if secret in shown] == []


def test_a_job_runs_once_and_a_domain_gives_an_ingress() -> None:
    spec = {"schedule": "1 2 * * *", "jobTemplate": {"spec": {"ttlSecondsAfterFinished": 5, "template": {}}}}
    metadata = {"name": "orders", "namespace": NAMESPACE}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    job_settings = settings(objects=[cron], kind="job", announces=False)
    recording = record(lambda: deploy(job_settings), stack=job_settings.stack)
    once = recording.one("kubernetes:batch/v1:Job", "service-job-orders-now")
    assert once.inputs["spec"] == {"template": {}}
    assert not recording.of("kubernetes:networking.k8s.io/v1:Ingress")
    recording = recorded(domain="preview.example.com", ingress_class="nginx")
    (ingress,) = recording.of("kubernetes:networking.k8s.io/v1:Ingress")
    assert ingress.inputs["spec"]["rules"][0]["host"] == "pr-12-orders.preview.example.com"
