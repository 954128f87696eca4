"""The ``aws`` provider: a bucket."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError

from tests.sandbox.providers.examples import Example, raw


def _program(body: str) -> str:
    return f"one = {body}\npulumi.export('name', one.bucket)\n"


def example(endpoint: str) -> Example:
    """Against the moto server at ``endpoint``."""
    s3: Any = boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1")

    def exists(name: str) -> bool:
        try:
            s3.head_bucket(Bucket=name)
        except ClientError:
            return False
        return True

    def drift(name: str) -> None:
        tagging = {"TagSet": [{"Key": "owner", "Value": "someone else"}]}
        s3.put_bucket_tagging(Bucket=name, Tagging=tagging)

    def adopt() -> str:
        name = "made-by-hand"
        place = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=place)
        return _program(
            f"aws.s3.Bucket('one', bucket={name!r}, opts=pulumi.ResourceOptions(import_={name!r}))"
        )

    return Example(
        head="import pulumi_aws as aws",
        create=_program("aws.s3.Bucket('one', tags={'owner': 'data'})"),
        update=_program("aws.s3.Bucket('one', tags={'owner': 'platform'})"),
        updated={"tags.owner": "update"},
        replace=_program("aws.s3.Bucket('one', tags={'owner': 'data'}, object_lock_enabled=True)"),
        replaced={"objectLockEnabled": "add-replace"},
        wrong=raw(
            "aws:s3/bucket:Bucket", {"tags": {"owner": 7}, "logging": {"target": "x"}, "forceDestroi": True}
        ),
        wrong_paths=("tags.owner", "logging.target", "forceDestroi"),
        unknown_type="aws:s3/bukket:Bukket",
        missing_type="aws:s3/bucketMetric:BucketMetric",
        unknowns="""
            one = aws.kms.Key("one", deletion_window_in_days=7)
            two = aws.kms.Alias("two", target_key_id=one.key_id)
            pulumi.export("two", two.target_key_arn)
        """,
        secret="""
            one = aws.secretsmanager.Secret("one", recovery_window_in_days=0)
            two = aws.secretsmanager.SecretVersion(
                "two", secret_id=one.id, secret_string=pulumi.Output.secret("correct horse")
            )
            read = aws.secretsmanager.get_secret_version_output(secret_id=two.secret_id)
            pulumi.export("secret", read.secret_string)
        """,
        exists=exists,
        drift=drift,
        drifted="tags.owner",
        remove=lambda name: s3.delete_bucket(Bucket=name),
        adopt=adopt,
        config={"aws:region": "eu-central-1"},
    )
