"""What no program declares, on moto; ``gcloud`` and ``kubectl`` are stand-ins that answer as theirs do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from sandbox.servers.moto import MotoServer

SCRIPT = Path(__file__).parents[2] / ".ci" / "undeclared"
STATE = [
    {"type": "aws:s3/bucket:Bucket", "id": "declared", "outputs": {"arn": "arn:aws:s3:::declared"}},
    {"type": "gcp:storage/bucket:Bucket", "id": "declared-gcs"},
    {"type": "kubernetes:apps/v1:Deployment", "id": "kilo/ingest"},
]
BOOTSTRAPPED = [{"type": "aws:s3/bucket:Bucket", "id": "state", "outputs": {"arn": "arn:aws:s3:::state"}}]
ASSETS = [
    {"name": "//storage.googleapis.com/declared-gcs"},
    {"name": "//artifactregistry.googleapis.com/projects/210987654321/locations/l/repositories/forgotten"},
]
OBJECTS = [
    {"kind": "Deployment", "metadata": {"name": "ingest"}},
    {"kind": "Deployment", "metadata": {"name": "by-hand"}},
    {"kind": "Job", "metadata": {"name": "backup-1", "ownerReferences": [{"name": "backup"}]}},
    {"kind": "Service", "metadata": {"name": "ingest"}},
]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    answers = {
        "pulumi": {"deployment": {"resources": STATE}},
        "gcloud": ASSETS,
        "kubectl": {"items": OBJECTS},
    }
    for name, answer in answers.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(answer))
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\ncat {tmp_path}/{name}.json\n')
        program.chmod(0o755)
    # The bootstrap's own state lies beside the stage's.
    (tmp_path / "bootstrap.json").write_text(json.dumps({"deployment": {"resources": BOOTSTRAPPED}}))
    (tmp_path / "pulumi").write_text(
        f'#!/bin/sh\ncase "$*" in *"--cwd bootstrap"*) cat {tmp_path}/bootstrap.json;;'
        f" *) cat {tmp_path}/pulumi.json;; esac\n"
    )
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  gcp:project: kilo-dev\n")
    server = MotoServer(tmp_path / "aws")
    server.start()
    path = [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
    yield {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    server.stop()


def test_what_carries_the_stages_tags_and_is_in_no_state_is_listed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    client: Any = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    for bucket, stage, preview in (
        ("declared", "dev", ""),
        ("forgotten", "dev", ""),
        ("of-another-stage", "prod", ""),
        ("of-a-preview", "dev", "pr-12-orders"),
        ("state", "dev", ""),
    ):
        client.create_bucket(Bucket=bucket)
        tags = [{"Key": "project", "Value": "kilo"}, {"Key": "stage", "Value": stage}]
        tags += [{"Key": "preview", "Value": preview}] if preview else []
        client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    done = subprocess.run(
        [SCRIPT, "dev"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "//artifactregistry.googleapis.com/projects/************/locations/l/repositories/forgotten",
        "Deployment kilo/by-hand",
        "Service kilo/ingest",
        "arn:aws:s3:::forgotten",
    ]
    calls = (tmp_path / "calls").read_text()
    assert "--scope=projects/kilo-dev --query=labels.project:kilo AND labels.stage:dev" in calls
    assert "--namespace kilo --selector=app.kubernetes.io/part-of=kilo" in calls


def test_a_cloud_that_cannot_be_asked_fails_instead_of_listing_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "gcloud").write_text("#!/bin/sh\necho 'the Cloud Asset API is off' >&2\nexit 1\n")
    done = subprocess.run(
        [SCRIPT, "dev"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "the Cloud Asset API is off" in done.stderr


def test_a_stage_that_was_not_made_by_the_bootstrap_has_no_state_of_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "pulumi").write_text(
        '#!/bin/sh\ncase "$*" in *bootstrap*) echo "error: no stack named \'dev\' found" >&2; exit 255;;'
        f" *) cat {tmp_path}/pulumi.json;; esac\n"
    )
    run = [SCRIPT, "dev"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Deployment kilo/by-hand" in done.stdout
    # What can't be read is not nothing.
    (tmp_path / "pulumi").write_text(
        f"#!/bin/sh\ncase \"$*\" in *bootstrap*) echo 'error: AccessDenied' >&2; exit 255;;"
        f" *) cat {tmp_path}/pulumi.json;; esac\n"
    )
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AccessDenied" in done.stderr
