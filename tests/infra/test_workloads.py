"""The pods of the whole program, stage by stage: what each of them must keep."""

from __future__ import annotations

import re

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.setting_types import DEPLOYED
from tests.components.recorder import Recorded, record
from tests.infra.programs import ROOT, WORKLOADS, pods, program, secret_keys


def test_no_workload_has_a_cloud_identity_it_does_not_need(stage: str) -> None:
    recording = program(stage)
    with_identity = {
        account.inputs["metadata"]["name"]
        for account in recording.of("kubernetes:core/v1:ServiceAccount")
        if "eks.amazonaws.com/role-arn" in account.inputs["metadata"].get("annotations", {})
    }
    assert with_identity == {
        "ingest",
        "key-making",
        "consumer",
        "schema",
        "registry-mirror",
        "registry-sweep",
        "backup",
        "backup-completion",
        "backup-exporter",
        "backup-drill",
    }


def test_every_workload_is_hardened(stage: str) -> None:
    found = list(pods(program(stage)))
    assert len(found) >= 13
    for name, pod in found:
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
            assert container["resources"]["limits"]["memory"], name


def test_each_log_that_a_runbook_names_is_found_by_a_label_on_a_cluster() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "runbooks").glob("*.md"))
    named = set(re.findall(r"kilo logs ([a-z][a-z-]*)", pages))
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    signing = settings.audit.model_copy(update={"signing_key_secret": "audit-key"})
    encryption = settings.field_encryption.model_copy(update={"audit_public_key": "A" * 43 + "="})
    gateway = settings.gateway.model_copy(update={"rate_limit_service": DEPLOYED})
    changed = settings.model_copy(
        update={"audit": signing, "field_encryption": encryption, "gateway": gateway}
    )
    recording = record(lambda: deploy(changed), stack="dev")
    labelled: set[str] = set()
    for type_ in WORKLOADS:
        for workload in recording.of(type_):
            spec = workload.inputs["spec"]
            template = spec.get("jobTemplate", {}).get("spec", spec)["template"]
            labelled.add(template["metadata"]["labels"]["app.kubernetes.io/name"])
    assert {"ingest", "outbox-worker", "nats"} <= named <= labelled


def test_dev_fits_a_cluster_of_two_processors_and_four_gibibytes() -> None:
    """With a quarter of it left for the cluster's own pods and the largest of the scheduled tasks."""
    recording = program("dev")
    millicores = mebibytes = 0
    for type_ in ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet"):
        for workload in recording.of(type_):
            pod = workload.inputs["spec"]["template"]["spec"]
            for container in (*pod["containers"], *pod.get("initContainers", ())):
                asked = container["resources"]["requests"]
                millicores += workload.inputs["spec"]["replicas"] * int(asked["cpu"].removesuffix("m"))
                mebibytes += workload.inputs["spec"]["replicas"] * int(asked["memory"].removesuffix("Mi"))
    assert millicores <= 1_500
    assert mebibytes <= 3_072
    limits = dict(pods(recording))["nats"]["containers"][0]["resources"]["limits"]
    assert limits == dict(pods(program("stage")))["nats"]["containers"][0]["resources"]["limits"]


def test_every_service_that_stays_up_is_probed_and_spread(stage: str) -> None:
    recording = program(stage)
    for type_ in ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet"):
        for workload in recording.of(type_):
            pod = workload.inputs["spec"]["template"]["spec"]
            keys = [spread["topologyKey"] for spread in pod["topologySpreadConstraints"]]
            assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], workload.name
            for container in pod["containers"]:
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    assert probe in container, workload.name


def test_every_workload_has_an_account_a_network_policy_and_a_disruption_budget(stage: str) -> None:
    recording = program(stage)

    def names(type_: str) -> set[str]:
        return {found.inputs["metadata"]["name"] for found in recording.of(type_)}

    workloads = {name for name, _ in pods(recording)}
    assert workloads <= names("kubernetes:core/v1:ServiceAccount")
    assert workloads <= names("kubernetes:networking.k8s.io/v1:NetworkPolicy")
    staying = names("kubernetes:apps/v1:Deployment") | names("kubernetes:apps/v1:StatefulSet")
    assert staying == names("kubernetes:policy/v1:PodDisruptionBudget")


def test_what_a_pod_mounts_and_reads_is_there(stage: str) -> None:
    recording = program(stage)

    def named(type_: str) -> dict[str, Recorded]:
        return {found.inputs["metadata"]["name"]: found for found in recording.of(type_)}

    config_maps, secrets = named("kubernetes:core/v1:ConfigMap"), named("kubernetes:core/v1:Secret")
    for name, pod in pods(recording):
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in config_maps, name
        for key in secret_keys(pod):
            assert key["key"] in secrets[key["name"]].inputs["stringData"], name


def test_whoever_has_a_login_of_the_database_is_replaced_when_it_is() -> None:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    credentials = settings.database.credentials.model_copy(update={"generation": 2, "former_accepted": True})
    database = settings.database.model_copy(update={"credentials": credentials})
    changed = settings.model_copy(update={"database": database})
    recording = record(lambda: deploy(changed), stack="dev")
    having: set[str] = set()
    for type_ in WORKLOADS:
        for workload in recording.of(type_):
            spec = workload.inputs["spec"]
            template = spec.get("jobTemplate", {}).get("spec", spec)["template"]
            read = {key["name"] for key in secret_keys(template["spec"])}
            if any(name.startswith("database-") and name != "database-passwords" for name in read):
                having.add(workload.name)
                assert template["metadata"]["annotations"]["kilo.dev/database-credentials"] == "2", (
                    workload.name
                )
    assert having >= {"ingest", "outbox-worker", "debezium", "consumer", "gateway", "backup", "key-making"}
    for secret in recording.of("kubernetes:core/v1:Secret"):
        if secret.inputs["metadata"]["name"] == "database-cdc":
            assert secret.inputs["stringData"]["username"] == "kilo_cdc_2"


def test_the_bus_admits_its_clients_and_nobody_else(stage: str) -> None:
    policy = program(stage).one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "nats").inputs["spec"]
    clients = {
        rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for rule in policy["ingress"]
        if rule["ports"][0]["port"] == 4222
    }
    assert clients == {"debezium", "consumer", "outbox-worker", "outbox-reconciler", "bus-streams"}


def test_no_pod_reaches_the_nodes_metadata_service(stage: str) -> None:
    for policy in program(stage).of("kubernetes:networking.k8s.io/v1:NetworkPolicy"):
        for rule in policy.inputs["spec"].get("egress", []):
            for peer in rule["to"]:
                block = peer.get("ipBlock")
                if block and block["cidr"] == "0.0.0.0/0":
                    assert block["except"] == ["169.254.169.254/32"], policy.urn


def test_in_prod_no_two_members_of_the_bus_share_a_node() -> None:
    for stage, terms in (("prod", 1), ("stage", 0)):
        pod = dict(pods(program(stage)))["nats"]
        found = pod.get("affinity", {}).get("podAntiAffinity", {})
        required = found.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        assert len(required) == terms
        for term in required:
            assert term["topologyKey"] == "kubernetes.io/hostname"
            assert term["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "nats"}}


def test_a_drill_in_prod_restores_into_a_disk_of_its_own() -> None:
    for stage, kind in (("prod", "ephemeral"), ("dev", "emptyDir")):
        pod = dict(pods(program(stage)))["backup-drill"]
        mounted = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
        (volume,) = (each for each in pod["volumes"] if each["name"] == mounted["/tmp"])
        assert set(volume) == {"name", kind}
        if kind == "ephemeral":
            spec = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
            assert spec["storageClassName"] == "gp3"
            assert spec["resources"] == {"requests": {"storage": "204800Mi"}}


def test_a_member_of_the_bus_has_minutes_to_read_its_streams(stage: str) -> None:
    probe = dict(pods(program(stage)))["nats"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 900
