"""The bootstrap by the real engine on the sandbox's clouds: made, unchanged, without drift, and gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import boto3

from sandbox.engine.environment import Endpoints
from tests.bootstrap.stage_file import OWN, ROOT, config, write
from tests.sandbox.support import Project


def bootstrap(directory: Path, endpoints: Endpoints, blank: Path) -> Project:
    """The project in a checkout of its own."""
    shutil.copytree(ROOT / "bootstrap", directory / "bootstrap")
    write(directory, config())
    project = Project(directory / "bootstrap", endpoints, OWN, blank)
    project.program(
        f"""
        import runpy, sys
        sys.path.insert(0, {str(directory)!r})
        runpy.run_path({str(directory / "bootstrap" / "__main__.py")!r}, run_name="__main__")
        """
    )
    return project


def test_a_stages_ground_is_made_and_stays(tmp_path: Path, endpoints: Endpoints, blank: Path) -> None:
    project = bootstrap(tmp_path, endpoints, blank)
    created = project.up(None)
    assert set(created.steps.values()) == {"create"}
    outputs = project.outputs()
    assert outputs["state_backend"] == "s3://kilo-dev-state-eu?region=eu-central-1"
    assert outputs["github_environments"]["dev"]["AWS_ROLE_ARN"].endswith(":role/deployer")
    provider = outputs["github_environments"]["preview-dev"]["GCP_PROVIDER"]
    assert provider.endswith("/workloadIdentityPools/kilo-dev-github/providers/github")

    def client(service: str) -> Any:
        made: Any = boto3.client
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return made(service, endpoint_url=endpoints.aws, region_name="eu-central-1", **keys)

    bucket = {"Bucket": "kilo-dev-state-eu"}
    assert client("s3").get_bucket_versioning(**bucket)["Status"] == "Enabled"
    assert client("s3").get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    assert {"boundary"} == {
        name.removeprefix("kilo-dev-")
        for each in client("iam").list_policies(Scope="Local")["Policies"]
        if (name := each["PolicyName"]).startswith("kilo-dev-")
    }
    assert client("secretsmanager").describe_secret(SecretId=config()["kilo:database"]["url_secret_id"])
    assert project.up(None, "--expect-no-changes").steps == {}
    assert project.engine("refresh", "--preview-only").steps == {}

    elsewhere = config()
    text = json.dumps(elsewhere).replace("123456789012", "999999999999")
    write(tmp_path, json.loads(text))
    refused = project.engine("preview", code=None)
    assert refused.code != 0
    assert "the credentials are account 123456789012's" in refused.messages
    write(tmp_path, config())
    assert set(project.engine("destroy").steps.values()) == {"delete"}
