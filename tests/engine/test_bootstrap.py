"""The bootstrap by the real engine on the sandbox's clouds: made, unchanged, without drift, and gone.

And as the page says it, command by command, with the state in a bucket and the secrets in it under a key. The
sandbox's S3 and KMS check no rights: what the roles may do there, tests/bootstrap asks.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from sandbox import toolchain
from sandbox.engine import environment
from sandbox.engine.environment import Endpoints
from tests.bootstrap.stage_file import OWN, ROOT, config, write
from tests.sandbox.providers.conftest import running_clouds
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


def commands_of_the_page() -> str:
    """Its blocks of commands, for dev; what is typed to AWS' own command line is left out."""
    page = (ROOT / "docs" / "prerequisites.md").read_text(encoding="utf-8")
    section = page.partition("\n## The bootstrap\n")[2].partition("\n## ")[0]
    blocks = [
        text for kind, text in re.findall(r"^ +```(.*)\n([^`]*)```$", section, re.MULTILINE) if not kind
    ]
    blocks = [block for block in blocks if " aws " not in block]
    assert len(blocks) == 2
    return "\n".join(["set -e", *blocks]).replace("prod", "dev")


@pytest.fixture
def empty_clouds(tmp_path: Path) -> Iterator[Endpoints]:
    """In which no name was ever used: a secret's is kept for a while after its end."""
    with running_clouds(tmp_path) as found:
        yield found


def test_the_pages_commands_put_the_state_where_all_others_will_be(
    tmp_path: Path, empty_clouds: Endpoints
) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("bootstrap", "infra", "components"):
        shutil.copytree(ROOT / folder, checkout / folder)
    shutil.copy(ROOT / "Pulumi.yaml", checkout)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    write(checkout, config())
    YAML().dump({"config": OWN}, checkout / "bootstrap" / "Pulumi.dev.yaml")
    variables = environment.prepare(checkout, toolchain.path("pulumi"), empty_clouds)
    # A backend of the environment would win over the one that is logged in to.
    del variables["PULUMI_BACKEND_URL"]

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=checkout,
            env=environment.overlay(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "local").mkdir()
    # `--local` is the user's home, whatever HOME says, and nobody is there to say yes.
    script = commands_of_the_page().replace("login --local", f"login file://{tmp_path / 'local'}")
    run(script.replace("pulumi up", "pulumi up --yes --skip-preview"))

    assert run("pulumi whoami --verbose").count("s3://kilo-dev-state-eu?region=eu-central-1") == 1
    assert not (checkout / "bootstrap" / "bootstrap.json").exists()
    for file in (checkout / "Pulumi.dev.yaml", checkout / "bootstrap" / "Pulumi.dev.yaml"):
        text = file.read_text(encoding="utf-8")
        assert "secretsprovider: awskms://alias/kilo-state/dev?region=eu-central-1" in text
        assert "encryptionsalt" not in text
    run("cd bootstrap && pulumi preview -s dev --expect-no-changes")
