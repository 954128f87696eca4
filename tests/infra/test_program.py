"""The whole program, stage by stage: what every resource of it must keep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.settings import Settings
from kilo.contract import StackOutputs
from tests.components.recorder import SECRETS, Recorded, record
from tests.infra.programs import ROOT, pods, program, texts

PROTECTED = (
    "aws:ecr/repository:Repository",
    "aws:kms/alias:Alias",
    "aws:kms/key:Key",
    "aws:s3/bucket:Bucket",
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
    "gcp:artifactregistry/repository:Repository",
    "gcp:storage/bucket:Bucket",
)


def test_the_outputs_are_the_contract_whole_and_nothing_else(stage: str) -> None:
    outputs = program(stage).outputs
    assert set(outputs) == set(StackOutputs.model_fields)
    parsed = StackOutputs.model_validate(outputs)
    assert parsed.stage == stage
    assert parsed.database.host == f"postgres.kilo-{stage}.internal"
    assert parsed.database.port == 5432


def test_workloads_mount_the_very_outputs_that_the_stack_exports(stage: str) -> None:
    recording = program(stage)
    config_map = recording.one("kubernetes:core/v1:ConfigMap", "namespace-outputs")
    mounted = StackOutputs.model_validate_json(config_map.inputs["data"]["outputs.json"])
    assert mounted == StackOutputs.model_validate(recording.outputs)


def test_no_output_holds_a_secret(stage: str) -> None:
    recording = program(stage)
    assert not recording.outputs_hold_secrets
    for text in texts(recording.outputs):
        assert not any(secret in text for secret in SECRETS)


def test_secrets_are_only_in_secrets_and_there_marked_as_such(stage: str) -> None:
    for resource in program(stage).resources:
        holds = any(secret in text for text in texts(resource.inputs) for secret in SECRETS)
        if resource.type == "kubernetes:core/v1:Secret":
            assert holds
            assert "stringData" in resource.secret_inputs
        else:
            assert not holds, resource.urn


def test_the_administrators_url_is_read_by_the_schemas_job_and_nobody_else(stage: str) -> None:
    """The recorder answers no call, so the program reads no secret of the cloud's either."""
    recording = program(stage)
    settings = read_stage_file(ROOT / f"Pulumi.{stage}.yaml")
    (reads,) = (
        policy
        for policy in recording.of("aws:iam/rolePolicy:RolePolicy")
        if "secretsmanager" in policy.inputs["policy"]
    )
    assert reads.inputs["role"] == f"kilo-{stage}-schema"
    (statement,) = json.loads(reads.inputs["policy"])["Statement"]
    assert statement["Action"] == ["secretsmanager:GetSecretValue"]
    assert statement["Resource"] == [
        f"arn:aws:secretsmanager:eu-central-1:{settings.aws.account_id}:secret:kilo/{stage}/database-url-??????"
    ]
    trust = json.loads(recording.one("aws:iam/role:Role", "schema").inputs["assumeRolePolicy"])
    (subjects,) = (
        value
        for name, value in trust["Statement"][0]["Condition"]["StringEquals"].items()
        if name.endswith(":sub")
    )
    assert subjects == [f"system:serviceaccount:{settings.namespace}:schema"]
    told = {
        name
        for name, pod in pods(recording)
        for container in pod["containers"]
        for variable in container["env"]
        if variable["name"] == "DATABASE_URL_SECRET"
    }
    assert told == {"schema"}


def test_who_goes_to_the_database_knows_its_server_by_the_stages_certificates() -> None:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    known = settings.database.model_copy(update={"sslmode": "verify-full", "ca": "the certificates"})
    recording = record(lambda: deploy(settings.model_copy(update={"database": known})))
    files = recording.one("kubernetes:core/v1:ConfigMap", "namespace-outputs").inputs["data"]
    assert files["database-ca.crt"] == "the certificates"
    for name, pod in pods(recording):
        for container in pod["containers"]:
            variables = {each["name"]: each.get("value") for each in container["env"]}
            if not {"DATABASE_URL", "DATABASE_URL_SECRET"} & variables.keys():
                continue
            assert variables["PGSSLROOTCERT"] == "/etc/kilo/database-ca.crt", name
            mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            volumes = {
                mounted.get(volume["name"])
                for volume in pod["volumes"]
                if volume.get("configMap", {}).get("name") == "kilo-outputs"
            }
            assert "/etc/kilo" in volumes, name
    worker = recording.one("kubernetes:core/v1:Secret", "database-worker").inputs["stringData"]
    assert worker["DATABASE_URL"].endswith("@postgres.kilo-dev.internal:5432/kilo?sslmode=verify-full")
    connector = recording.one("kubernetes:core/v1:ConfigMap", "debezium-config").inputs["data"]
    properties = connector["application.properties"].splitlines()
    assert "debezium.source.database.sslmode=verify-full" in properties
    assert "debezium.source.database.sslrootcert=/etc/kilo/database-ca.crt" in properties
    debezium = dict(pods(recording))["debezium"]
    assert any(volume.get("configMap", {}).get("name") == "kilo-outputs" for volume in debezium["volumes"])


def test_every_resource_belongs_to_a_component(stage: str) -> None:
    recording = program(stage)
    components = {resource.urn for resource in recording.resources if not resource.custom}
    for resource in recording.resources:
        if resource.custom:
            assert resource.parent in components, resource.urn
        else:
            area, name = resource.type.removeprefix("kilo:").split(":")
            assert area.islower()
            assert name[0].isupper()


def test_what_cannot_be_made_again_is_kept(stage: str) -> None:
    kept = stage != "dev"
    recording = program(stage)
    for type_ in PROTECTED:
        assert recording.of(type_), type_
        for resource in recording.of(type_):
            assert resource.protect is kept, resource.urn
            assert resource.retain_on_delete is kept, resource.urn


def test_nothing_is_locked_for_ever_but_in_prod(stage: str) -> None:
    recording = program(stage)
    locks = recording.of("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    modes = {lock.inputs["rule"]["defaultRetention"]["mode"] for lock in locks}
    assert modes == ({"COMPLIANCE"} if stage == "prod" else {"GOVERNANCE"})
    for bucket in recording.of("gcp:storage/bucket:Bucket"):
        assert bucket.inputs["retentionPolicy"]["isLocked"] is (stage == "prod")


def test_iam_names_every_action_and_every_resource(stage: str) -> None:
    for policy in program(stage).of("aws:iam/rolePolicy:RolePolicy"):
        for statement in json.loads(policy.inputs["policy"])["Statement"]:
            assert not [action for action in statement["Action"] if "*" in action], policy.urn
            if statement["Action"] == ["ecr:GetAuthorizationToken"]:
                continue  # The one action here that AWS gives no resource.
            for resource in statement["Resource"]:
                assert resource.startswith("arn:aws:"), policy.urn
                assert "*" not in resource.removesuffix("/*"), policy.urn


def test_checkpoints_are_signed_by_an_identity_that_can_add_to_the_locked_bucket_alone() -> None:
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")
    signing = settings.audit.model_copy(update={"signing_key_secret": "audit-key"})
    encryption = settings.field_encryption.model_copy(update={"audit_public_key": "A" * 43 + "="})
    changed = settings.model_copy(update={"audit": signing, "field_encryption": encryption})
    recording = record(lambda: deploy(changed), stack="prod")
    policy = recording.one("aws:iam/rolePolicy:RolePolicy", "audit-checkpoint-checkpoints")
    allowed = {
        each["Sid"]: (set(each["Action"]), each["Resource"])
        for each in json.loads(policy.inputs["policy"])["Statement"]
    }
    bucket = f"arn:aws:s3:::{settings.audit.bucket}"
    assert allowed == {
        "List": ({"s3:ListBucketVersions"}, [bucket]),
        "Read": ({"s3:GetObjectVersion"}, [f"{bucket}/fle-audit/*"]),
        "Write": ({"s3:PutObject", "s3:PutObjectRetention"}, [f"{bucket}/fle-audit/*"]),
    }
    pod = dict(pods(recording))["audit-checkpoint"]
    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
        for each in pod["containers"][0]["env"]
        if "valueFrom" in each and "secretKeyRef" in each["valueFrom"]
    }
    assert secrets == {"DATABASE_URL": "database-auditor", "KILO_FLE_AUDIT_KEY": "audit-key"}


def test_keys_that_are_due_are_destroyed_on_a_schedule_with_no_cloud_at_all(stage: str) -> None:
    recording = program(stage)
    pod = dict(pods(recording))["key-destruction"]
    assert pod["containers"][0]["args"] == ["fle", "keys", "destroy-due"]
    assert "audit-checkpoint" not in dict(pods(recording))
    account = recording.one("kubernetes:core/v1:ServiceAccount", "key-destruction")
    assert not account.inputs["metadata"].get("annotations")


def test_each_process_has_the_secrets_of_its_own_role_alone(stage: str) -> None:
    found = {
        name: {
            variable["valueFrom"]["secretKeyRef"]["name"]
            for container in pod["containers"]
            for variable in container["env"]
            if "secretKeyRef" in variable.get("valueFrom", {})
        }
        for name, pod in pods(program(stage))
    }
    assert {name: secrets for name, secrets in found.items() if secrets} == {
        "schema": {"database-passwords"},
        "ingest": {"database-ingest"},
        "bus-streams": {"bus-operator"},
        "outbox-worker": {"database-worker", "bus-worker"},
        "outbox-reconciler": {"database-worker", "bus-reconciler"},
        "debezium": {"database-cdc", "bus-cdc"},
        "consumer": {"database-consumer", "bus-consumer"},
        "backup": {"database-backup"},
        "key-destruction": {"database-destroyer"},
        "key-making": {"database-keymaker"},
        **({"usage-counter": {"database-usage"}} if stage == "dev" else {}),
    }


def test_one_more_tenant_makes_its_key_and_replaces_nothing() -> None:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    newcomer = settings.tenants[-1].model_copy(update={"id": "newcomer"})
    more = settings.model_copy(update={"tenants": (*settings.tenants, newcomer)})
    before = {found.urn for found in program("dev").resources}
    after = {found.urn for found in record(lambda: deploy(more)).resources}
    assert before <= after
    added = {urn.rpartition("::")[2] for urn in after - before if "kms" in urn}
    assert added == {"tenant-keys-newcomer"}


def test_a_ramp_runs_the_next_version_beside_the_stable_one() -> None:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    trial = settings.ingest.model_copy(update={"next_image": "registry.example/kilo:0.2.0"})
    recording = record(lambda: deploy(settings.model_copy(update={"ingest": trial})))
    images = {
        name: recording.one("kubernetes:apps/v1:Deployment", name).inputs["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        for name in ("ingest", "ingest-next")
    }
    assert images == {"ingest": settings.images.runtime, "ingest-next": "registry.example/kilo:0.2.0"}
    trust = recording.one("aws:iam/role:Role", "ingest").inputs["assumeRolePolicy"]
    assert "system:serviceaccount:kilo:ingest-next" in trust


def test_the_migration_runs_again_when_the_schema_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.cluster import database

    def template() -> Any:
        settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
        return (
            record(lambda: deploy(settings))
            .one("kubernetes:batch/v1:Job", "schema")
            .inputs["spec"]["template"]
        )

    before = template()
    monkeypatch.setattr(database, "schema_checksum", lambda: "other")
    assert template() != before


def test_files_in_the_cluster_change_in_place(stage: str) -> None:
    # Otherwise the Kubernetes provider deletes a ConfigMap that changed and makes it anew.
    config = (ROOT / f"Pulumi.{stage}.yaml").read_text(encoding="utf-8")
    assert "  kubernetes:enableConfigMapMutable: true\n" in config
    assert "  kubernetes:enableSecretMutable: true\n" in config


def test_one_more_tenant_touches_what_is_the_tenants_alone() -> None:
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    newcomer = settings.tenants[-1].model_copy(update={"id": "newcomer"})
    more = settings.model_copy(update={"tenants": (*settings.tenants, newcomer)})

    def registered(stage: Settings) -> dict[str, Recorded]:
        # As in a preview, where the newcomer's key is not known yet.
        recording = record(lambda: deploy(stage), stack="dev", preview=True)
        return {found.urn: found for found in recording.resources}

    before, after = registered(settings), registered(more)
    assert before.keys() <= after.keys()
    assert {after[urn].name for urn in after.keys() - before.keys()} == {"tenant-keys-newcomer"}
    assert {found.name for urn, found in before.items() if found.inputs != after[urn].inputs} == {
        "namespace-outputs",
        "gateway-envoy",
        "ingest",
        "key-making",
        "consumer",
        "objectives-file",
    }
