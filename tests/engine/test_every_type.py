"""Each resource type of the clouds: made, unchanged, without drift, changed in place, and gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.engine.environment import Endpoints
from sandbox.providers.aws import provider as aws
from sandbox.providers.gcp import provider as gcp
from tests.sandbox.support import Project

_AWS = """
    def policy(*actions, resource="*", **more):
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}
        return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [statement]})


    word = pulumi.Config().get("word") or "first"
    tags = {"word": word}
    key = aws.kms.Key(
        "key", description=word, enable_key_rotation=True, deletion_window_in_days=7, tags=tags
    )
    aws.kms.Alias("alias", target_key_id=key.key_id)
    aws.kms.KeyPolicy("key-policy", key_id=key.id, policy=policy("kms:*", Principal={"AWS": "*"}, Sid=word))

    everywhere = aws.kms.Key("everywhere", multi_region=True, deletion_window_in_days=7)
    aws.kms.ReplicaKey(
        "replica",
        primary_key_arn=everywhere.arn,
        region="eu-west-1",
        description=word,
        policy=policy("kms:*", Principal={"AWS": "*"}, Sid=word),
        deletion_window_in_days=7,
        tags=tags,
    )

    bucket = aws.s3.Bucket("bucket", object_lock_enabled=True, tags=tags)
    in_bucket = {"bucket": bucket.id, "opts": pulumi.ResourceOptions(parent=bucket)}
    versioning = aws.s3.BucketVersioning(
        "versioning", **in_bucket, versioning_configuration={"status": "Enabled"}
    )
    aws.s3.BucketObjectLockConfiguration(
        "lock",
        bucket=bucket.id,
        opts=pulumi.ResourceOptions(depends_on=[versioning]),
        rule={"default_retention": {"mode": "GOVERNANCE", "days": len(word)}},
    )
    copy = aws.s3.Bucket("copy", object_lock_enabled=True, region="eu-west-1")
    aws.s3.BucketReplicationConfig(
        "replication",
        bucket=bucket.id,
        opts=pulumi.ResourceOptions(depends_on=[versioning, copy]),
        role="arn:aws:iam::123456789012:role/copies",
        rules=[
            {
                "id": word,
                "priority": 1,
                "status": "Enabled",
                "filter": {"prefix": ""},
                "delete_marker_replication": {"status": "Disabled"},
                "destination": {"bucket": copy.arn},
            }
        ],
    )
    by_default = {"sse_algorithm": "aws:kms", "kms_master_key_id": key.arn}
    aws.s3.BucketServerSideEncryptionConfiguration(
        "encryption",
        **in_bucket,
        rules=[{"apply_server_side_encryption_by_default": by_default, "bucket_key_enabled": True}],
    )
    aws.s3.BucketPublicAccessBlock(
        "access",
        **in_bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=word == "first",
    )
    aws.s3.BucketOwnershipControls(
        "ownership", **in_bucket, rule={"object_ownership": "BucketOwnerEnforced"}
    )
    aws.s3.BucketLifecycleConfiguration(
        "lifecycle",
        **in_bucket,
        rules=[
            {
                "id": word,
                "status": "Enabled",
                "filter": {"prefix": "db/"},
                "expiration": {"days": 30},
                "noncurrent_version_expiration": {"noncurrent_days": 7},
            },
            {
                "id": "parts",
                "status": "Enabled",
                "filter": {},
                "abort_incomplete_multipart_upload": {"days_after_initiation": 3},
            },
        ],
    )
    document = aws.iam.get_policy_document_output(
        statements=[
            {
                "sid": "TlsOnly",
                "effect": "Deny",
                "actions": ["s3:*"],
                "resources": [bucket.arn],
                "principals": [{"type": "*", "identifiers": ["*"]}],
                "conditions": [{"test": "Bool", "variable": "aws:SecureTransport", "values": ["false"]}],
            }
        ]
    )
    aws.s3.BucketPolicy("bucket-policy", **in_bucket, policy=document.json)

    repository = aws.ecr.Repository(
        "repository",
        image_tag_mutability="IMMUTABLE",
        tags=tags,
        image_scanning_configuration={"scan_on_push": True},
        encryption_configurations=[{"encryption_type": "KMS"}],
    )
    selection = {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": 14,
    }
    rule = {"rulePriority": 1, "description": word, "selection": selection, "action": {"type": "expire"}}
    aws.ecr.LifecyclePolicy("expiry", repository=repository.name, policy=json.dumps({"rules": [rule]}))
    aws.ecr.RepositoryPolicy(
        "pull",
        repository=repository.name,
        policy=policy("ecr:BatchGetImage", Principal={"AWS": "*"}, Sid=word),
    )
    destination = {"region": "eu-west-1", "registry_id": repository.registry_id}
    by_name = {"filter": word, "filter_type": "PREFIX_MATCH"}
    aws.ecr.ReplicationConfiguration(
        "replication",
        replication_configuration={
            "rules": [{"destinations": [destination], "repository_filters": [by_name]}]
        },
    )
    aws.ecr.RegistryScanningConfiguration(
        "scanning",
        scan_type="BASIC",
        rules=[
            {
                "scan_frequency": "SCAN_ON_PUSH",
                "repository_filters": [{"filter": "*", "filter_type": "WILDCARD"}],
            }
        ],
    )

    dead = aws.sqs.Queue("dead", message_retention_seconds=1209600, sqs_managed_sse_enabled=True)
    redrive = dead.arn.apply(lambda arn: json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5}))
    queue = aws.sqs.Queue(
        "queue",
        visibility_timeout_seconds=100 + len(word),
        redrive_policy=redrive,
        tags=tags,
        kms_master_key_id=key.id,
    )
    pushes = aws.cloudwatch.EventRule(
        "pushes",
        description=word,
        tags=tags,
        event_pattern=json.dumps({"source": ["aws.ecr"], "detail": {"action-type": ["PUSH"]}}),
    )
    aws.sqs.QueuePolicy(
        "queue-policy",
        queue_url=queue.id,
        policy=policy(
            "sqs:SendMessage",
            resource=queue.arn,
            Principal={"Service": "events.amazonaws.com"},
            Condition={"ArnEquals": {"aws:SourceArn": pushes.arn}},
        ),
    )
    aws.cloudwatch.EventTarget(
        "target",
        rule=pushes.name,
        arn=queue.arn,
        dead_letter_config={"arn": dead.arn},
        retry_policy={"maximum_event_age_in_seconds": 3600, "maximum_retry_attempts": len(word)},
    )

    trust = policy("sts:AssumeRole", "sts:TagSession", Principal={"Service": "pods.eks.amazonaws.com"})
    trust = trust.apply(lambda text: text.replace(', "Resource": "*"', ""))
    role = aws.iam.Role("role", assume_role_policy=trust, description=word, tags=tags)
    aws.iam.RolePolicy("role-policy", role=role.id, policy=policy(f"sqs:{word}", resource=queue.arn))
    own = aws.iam.Policy("policy", policy=policy(f"sqs:{word}", resource=queue.arn), tags=tags)
    aws.iam.RolePolicyAttachment("attachment", role=role.name, policy_arn=own.arn)

    audience = f"https://example.com/{word}"
    aws.iam.OpenIdConnectProvider("issuer", url="https://issuer.example", client_id_lists=[audience])

    secret = aws.secretsmanager.Secret("secret", description=word, recovery_window_in_days=7, tags=tags)
    aws.secretsmanager.SecretVersion("version", secret_id=secret.id, secret_string="a word")
    identity, place = aws.get_caller_identity(), aws.get_region()
    pulumi.export("here", f"{identity.account_id} {place.region} {aws.get_partition().partition}")
"""

_GCP = """
    word = pulumi.Config().get("word") or "first"
    account = gcp.serviceaccount.Account("account-1", display_name=word)
    bucket = gcp.storage.Bucket(
        "bucket",
        location="EU",
        uniform_bucket_level_access=True,
        labels={"word": word},
        public_access_prevention="enforced",
        retention_policy={"retention_period": "86400", "is_locked": False},
        soft_delete_policy={"retention_duration_seconds": 0},
        default_event_based_hold=True,
        lifecycle_rules=[{"action": {"type": "Delete"}, "condition": {"age": len(word)}}],
    )
    gcp.storage.BucketIAMMember(
        "writer", bucket=bucket.name, role="roles/storage.objectCreator", member=account.member
    )
    pool = gcp.iam.WorkloadIdentityPool("pool", workload_identity_pool_id="outside", display_name=word)
    gcp.iam.WorkloadIdentityPoolProvider(
        "provider",
        workload_identity_pool_id=pool.workload_identity_pool_id,
        workload_identity_pool_provider_id="issuer",
        attribute_mapping={"google.subject": "assertion.sub"},
        oidc={"issuer_uri": "https://issuer.example", "allowed_audiences": [word]},
    )
    gcp.projects.Service("api", service="storage.googleapis.com", disable_on_destroy=False)
    ring = gcp.kms.KeyRing("ring", location="europe-west1")
    gcp.kms.KeyRingIAMMember(
        "ring-user", key_ring_id=ring.id, role="roles/cloudkms.viewer", member=account.member
    )
    key = gcp.kms.CryptoKey("key", key_ring=ring.id, rotation_period="7776000s", labels={"word": word})
    gcp.kms.CryptoKeyIAMMember(
        "key-user",
        crypto_key_id=key.id,
        member=account.member,
        role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
    )
    images = gcp.artifactregistry.Repository(
        "images",
        repository_id="images",
        format="DOCKER",
        description=word,
        docker_config={"immutable_tags": True},
    )
    gcp.artifactregistry.RepositoryIamMember(
        "pusher",
        repository=images.name,
        location=images.location,
        role="roles/artifactregistry.writer",
        member=account.member,
    )
    gcp.serviceaccount.IAMMember(
        "workload",
        service_account_id=account.name,
        role="roles/iam.workloadIdentityUser",
        member="serviceAccount:p.svc.id.goog[kilo/backup]",
    )
    gcp.projects.IAMMember(
        "logger", project="trial-project", role="roles/logging.logWriter", member=account.member
    )
    pulumi.export("registry", images.registry_uri)
    pulumi.export("number", gcp.organizations.get_project().number)
"""

_PROVIDERS = {"aws": (aws.make, _AWS), "gcp": (gcp.make, _GCP)}


@pytest.fixture(params=["aws", "gcp"])
def package(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_type_settles(package: str, tmp_path: Path, endpoints: Endpoints, blank: Path) -> None:
    make, program = _PROVIDERS[package]
    config = {"aws:region": "eu-central-1", "gcp:project": "trial-project", "gcp:region": "europe-west1"}
    project = Project(tmp_path, endpoints, config, blank, f"import pulumi_{package} as {package}")

    created = project.up(program)
    assert _types(created.events) == set(make().types), "the program has every type of the provider"
    assert project.up(None, "--expect-no-changes").steps == {}
    assert project.engine("refresh", "--preview-only").steps == {}

    changed = project.up(None, "--config", "trial:word=another")
    assert set(changed.steps.values()) == {"update"}
    assert len(changed.steps) >= len(created.steps) // 3
    again = ("--config", "trial:word=another")
    assert project.up(None, "--expect-no-changes", *again).steps == {}
    assert project.engine("refresh", "--preview-only").steps == {}

    destroyed = project.engine("destroy")
    assert set(destroyed.steps) == set(created.steps)


def _types(events: list[dict[str, Any]]) -> set[str]:
    metadata = [event["resourcePreEvent"]["metadata"] for event in events if "resourcePreEvent" in event]
    return {one["type"] for one in metadata if not one["type"].startswith("pulumi:")}
