"""Workloads in the cluster: what every pod keeps, and when pods are replaced."""

from __future__ import annotations

from typing import Any

from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.pods.access import CLOUD_APIS, AccessArgs, From, To
from components.pods.pod import Scratch, SecretKey
from components.pods.runtime_pod import Process, runtime_access, runtime_pod
from components.pods.stateful_workload import Disk, StatefulWorkload, StatefulWorkloadArgs
from components.pods.task import Task, TaskArgs
from components.pods.workload import Workload, WorkloadArgs
from tests.components.recorder import record
from tests.components.support import DEPLOYMENT, pod, runtime_context, template, workload

POOL = "projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"


def test_a_new_version_is_ready_before_an_old_pod_stops() -> None:
    strategy = workload().one(DEPLOYMENT).inputs["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_pods_start_after_their_account_and_network_policy_are_there() -> None:
    recording = workload()
    needed = {
        recording.one("kubernetes:core/v1:ServiceAccount").urn,
        recording.one("kubernetes:networking.k8s.io/v1:NetworkPolicy").urn,
    }
    assert needed <= recording.one(DEPLOYMENT).dependencies


def test_the_selector_never_holds_what_may_change() -> None:
    recording = workload()
    selector = {"app.kubernetes.io/name": "shop"}
    assert recording.one(DEPLOYMENT).inputs["spec"]["selector"] == {"matchLabels": selector}
    assert recording.one("kubernetes:core/v1:Service").inputs["spec"]["selector"] == selector
    assert selector.items() <= template(recording)["metadata"]["labels"].items()


def test_a_pod_knows_its_address_and_its_secrets_by_reference() -> None:
    recording = workload(secrets={"DATABASE_URL": SecretKey("database-shop", "url")})
    variables = {found["name"]: found for found in template(recording)["spec"]["containers"][0]["env"]}
    assert variables["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert variables["DATABASE_URL"]["valueFrom"] == {"secretKeyRef": {"name": "database-shop", "key": "url"}}


def test_what_a_pod_may_write_is_scratch_of_a_bounded_size() -> None:
    spec = template(workload(scratch=[Scratch("/tmp", 64)]))["spec"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    (volume,) = spec["volumes"]
    assert mount["name"] == volume["name"]
    assert mount["mountPath"] == "/tmp"
    assert volume["emptyDir"] == {"sizeLimit": "64Mi"}


def test_a_pod_has_as_long_to_start_as_it_says() -> None:
    probe = template(workload(start_seconds=90))["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 90


def test_a_pod_behind_a_service_waits_before_it_stops_until_nobody_sends_it_anything() -> None:
    (container,) = template(workload())["spec"]["containers"]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_a_sidecar_starts_before_the_container_and_has_volumes_of_its_own() -> None:
    beside = pod(scratch=[Scratch("/tmp", 16)], annotations={"of": "sidecar"})
    spec = template(workload(scratch=[Scratch("/tmp", 64)], sidecars={"watch": beside}))["spec"]
    (sidecar,), (container,) = spec["initContainers"], spec["containers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("watch", "Always")
    assert sidecar["securityContext"] == container["securityContext"]
    (mount,), (own,) = sidecar["volumeMounts"], container["volumeMounts"]
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"]}
    assert (sizes[mount["name"]], sizes[own["name"]]) == ("16Mi", "64Mi")


def test_traffic_is_allowed_only_as_said() -> None:
    access = AccessArgs(
        namespace="kilo",
        ingress=[From(port=8080, workload="gateway"), From(port=8080, namespace="monitoring")],
        egress=[To(port=4222, workload="nats"), CLOUD_APIS],
    )
    spec = workload(access).one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["from"] for rule in spec["ingress"]] == [
        [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}],
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    ]
    dns, bus, clouds = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert bus["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "nats"}}}]
    assert clouds["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}]


def test_a_workload_without_rules_reaches_nothing_but_names() -> None:
    spec = workload().one("kubernetes:networking.k8s.io/v1:NetworkPolicy").inputs["spec"]
    assert spec.get("ingress", []) == []
    (dns,) = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}


def test_a_stateful_pod_keeps_its_disk_and_its_name() -> None:
    recording = record(
        lambda: StatefulWorkload(
            "bus",
            StatefulWorkloadArgs(
                access=AccessArgs(namespace="kilo"),
                pod=pod(),
                replicas=3,
                disk=Disk("/data", 50, "gp3"),
                service_ports={"http": 80},
            ),
        )
    )
    spec = recording.one("kubernetes:apps/v1:StatefulSet").inputs["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "50Gi"}}
    assert claim["spec"]["storageClassName"] == "gp3"
    mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in mounts
    # By the names that the StatefulSet looks for, so that a disk can grow.
    own = recording.of("kubernetes:core/v1:PersistentVolumeClaim")
    assert {each.inputs["metadata"]["name"] for each in own} == {"data-bus-0", "data-bus-1", "data-bus-2"}
    assert all(each.inputs["spec"] == claim["spec"] for each in own)
    service = recording.one("kubernetes:core/v1:Service", spec["serviceName"]).inputs["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True


def test_a_task_is_made_anew_since_a_job_cannot_change() -> None:
    recording = record(
        lambda: Task(
            "schema",
            TaskArgs(access=AccessArgs(namespace="kilo"), pod=pod(ports={}, alive=None, ready=None)),
        )
    )
    job = recording.one("kubernetes:batch/v1:Job")
    assert job.delete_before_replace
    assert job.inputs["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert "ttlSecondsAfterFinished" not in job.inputs["spec"]


def test_a_process_with_google_access_gets_a_token_for_that_audience_and_no_key() -> None:
    def program() -> None:
        identity = CloudIdentity(
            "mirror",
            CloudIdentityArgs(
                namespace="kilo",
                service_accounts=["mirror"],
                role_name="mirror",
                oidc_provider_arn="arn:aws:iam::1:oidc-provider/issuer",
                google_identity_provider=POOL,
            ),
        )
        process = Process(
            ["registry", "mirror"], port=1084, identity=identity, cpu_millicores=1, memory_mebibytes=1
        )
        Workload(
            "mirror",
            WorkloadArgs(
                access=runtime_access(runtime_context(), process),
                pod=runtime_pod(runtime_context(), process),
                replicas=1,
            ),
        )

    recording = record(program)
    spec = template(recording)["spec"]
    volume = next(found for found in spec["volumes"] if found["name"] == "google-token")
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == f"//iam.googleapis.com/{POOL}"
    variables = {found["name"]: found.get("value") for found in spec["containers"][0]["env"]}
    assert variables["GOOGLE_APPLICATION_CREDENTIALS"] == "/etc/google/credentials.json"
    assert variables["AWS_DEFAULT_REGION"] == "eu-central-1"
    account = recording.one("kubernetes:core/v1:ServiceAccount").inputs["metadata"]
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam:::mirror"}


def test_pods_are_replaced_when_the_outputs_change() -> None:
    def deployed(checksum: str, tenants: str = "", reads_tenants: bool = False) -> dict[str, Any]:
        process = Process(
            ["ingest", "serve"],
            port=1081,
            cpu_millicores=1,
            memory_mebibytes=1,
            reads_tenants=reads_tenants,
        )
        recording = record(
            lambda: Workload(
                "ingest",
                WorkloadArgs(
                    access=runtime_access(runtime_context(), process),
                    pod=runtime_pod(runtime_context(checksum, tenants), process),
                    replicas=1,
                ),
            )
        )
        return template(recording)

    assert deployed("one") != deployed("two")
    assert deployed("one") == deployed("one")
    assert deployed("one", "acme", reads_tenants=True) != deployed("one", "hooli", reads_tenants=True)
    assert deployed("one", "acme") == deployed("one", "hooli")
