"""The clouds' own limits, said by the providers before anything is made; generated names."""

from __future__ import annotations

import pytest

from sandbox.providers.aws import provider as aws
from sandbox.providers.base import Provider
from sandbox.providers.gcp import provider as gcp

_MAKE = {"aws": aws.make, "gcp": gcp.make}


@pytest.mark.parametrize(
    ("token", "inputs", "path", "words"),
    [
        ("aws:kms/key:Key", {"deletionWindowInDays": 5}, "deletionWindowInDays", "from 7 to 30, and is 5"),
        ("aws:kms/key:Key", {"customerMasterKeySpec": "RSA"}, "customerMasterKeySpec", "one of"),
        ("aws:kms/key:Key", {"policy": "{"}, "policy", "must be a JSON document"),
        (
            "aws:kms/replicaKey:ReplicaKey",
            {"primaryKeyArn": "arn:aws:kms:eu-west-1:1:key/mrk-1", "region": "eu-west-1"},
            "region",
            "a replica lies in another",
        ),
        ("aws:kms/alias:Alias", {"name": "acme", "targetKeyId": "k"}, "name", 'must begin with "alias/"'),
        ("aws:s3/bucket:Bucket", {"bucket": "Upper"}, "bucket", "lower-case"),
        ("aws:s3/bucket:Bucket", {"acl": "public-read"}, "acl", "aws.s3.BucketAcl"),
        (
            "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
            {"bucket": "b", "rule": {"defaultRetention": {"mode": "GOVERNANCE", "days": 1, "years": 1}}},
            "rule.defaultRetention",
            "exactly one of days and years",
        ),
        ("aws:sqs/queue:Queue", {"visibilityTimeoutSeconds": 50_000}, "visibilityTimeoutSeconds", "to 43200"),
        ("aws:cloudwatch/eventRule:EventRule", {}, "eventPattern", "eventPattern or a scheduleExpression"),
        (
            "aws:cloudwatch/eventTarget:EventTarget",
            {"rule": "r", "arn": "arn:aws:sqs:::q", "ecsTarget": {"taskDefinitionArn": "t"}},
            "ecsTarget",
            "can't carry this property out",
        ),
        ("aws:ecr/repository:Repository", {"name": "Team/App"}, "name", "lower-case"),
        (
            "aws:iam/role:Role",
            {"assumeRolePolicy": "{}", "maxSessionDuration": 60},
            "maxSessionDuration",
            "from 3600",
        ),
        ("gcp:storage/bucket:Bucket", {"location": "EU", "name": "my-google-bucket"}, "name", "google"),
        (
            "gcp:storage/bucket:Bucket",
            {"location": "EU", "retentionPolicy": {"retentionPeriod": "1"}, "versioning": {"enabled": True}},
            "versioning.enabled",
            "not both",
        ),
        (
            "gcp:kms/cryptoKey:CryptoKey",
            {"keyRing": "r", "rotationPeriod": "60s"},
            "rotationPeriod",
            "86400s",
        ),
        (
            "gcp:projects/iAMMember:IAMMember",
            {"project": "p", "role": "owner", "member": "user:a"},
            "role",
            "roles/",
        ),
    ],
)
def test_the_clouds_limits_are_said_before_anything_is_made(
    token: str, inputs: dict[str, object], path: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_PROJECT", "trial-project")
    provider: Provider = _MAKE[token.partition(":")[0]]()
    provider.configure({"project": "trial-project"}) if token.startswith("gcp") else None
    _, failures = provider.check(token, "one", {}, inputs, b"seed")
    assert [failure.path for failure in failures] == [path]
    assert words in failures[0].reason


def test_no_cloud_is_ever_reached_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from kilo.errors import BadInput

    for endpoint in ("", "https://kms.eu-central-1.amazonaws.com"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(BadInput, match="AWS_ENDPOINT_URL must be an address on this machine"):
            aws.make().configure({})


def test_a_generated_name_fits_and_follows_from_the_seed() -> None:
    provider = aws.make()
    made = [
        provider.check("aws:iam/role:Role", "r" * 80, {}, {"assumeRolePolicy": "{}"}, seed)[0]
        for seed in (b"1", b"1", b"2")
    ]
    assert made[0]["name"] == made[1]["name"] != made[2]["name"]
    assert len(made[0]["name"]) == 64
    kept = provider.check("aws:iam/role:Role", "r" * 80, made[0], {"assumeRolePolicy": "{}"}, b"3")[0]
    assert kept["name"] == made[0]["name"], "a generated name stays"
    given = provider.check(
        "aws:iam/role:Role",
        "r",
        {**made[0], "name": "chosen", "__defaults": []},
        {"assumeRolePolicy": "{}"},
        b"3",
    )[0]
    assert given["name"] != "chosen", "a name that the program takes back is generated"
