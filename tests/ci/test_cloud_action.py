"""The action by which jobs get engine and credentials: its steps, run as they stand there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from google.auth import identity_pool

from sandbox import toolchain
from tests.ci.workflows import FILES, ROOT, load, steps, write_program

ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "cloud" / "action.yml").read_text(encoding="utf-8"))
PROVIDER = "projects/123456789012/locations/global/workloadIdentityPools/kilo-prod-github/providers/github"


def run(text: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (step,) = [each for each in ACTION["runs"]["steps"] if text in each.get("run", "")]
    assert step["shell"] == "bash"
    assert set(step["env"]) <= variables.keys()
    programs = place / "programs"
    write_program(programs, "make", 'echo "make $*" >> called')
    write_program(programs, "aws", 'echo "aws $*" >> called')
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=place,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The variables of a job after the action's second step, in a folder whose name has a space."""
    place = tmp_path / "a checkout"
    place.mkdir()
    files = {name: str(place / name) for name in ("GITHUB_PATH", "GITHUB_ENV")}
    run(
        "make environment",
        place,
        AWS_ROLE="arn:aws:iam::321098765432:role/preview",
        REGION="eu-central-1",
        GCP_PROVIDER=PROVIDER,
        GCP_ACCOUNT="kilo-prod-preview@kilo-prod.iam.gserviceaccount.com",
        BACKEND="s3://kilo-prod-state-eu?region=eu-central-1",
        GITHUB_WORKSPACE=str(place),
        RUNNER_TEMP=str(place),
        ACTIONS_ID_TOKEN_REQUEST_URL="https://issuer.example/token?api-version=2",
        ACTIONS_ID_TOKEN_REQUEST_TOKEN="request-secret",
        **files,
    )
    assert (place / "called").read_text() == "make environment\n"
    assert Path(files["GITHUB_PATH"]).read_text() == f"{place}/.venv/bin\n"
    return dict(line.split("=", 1) for line in Path(files["GITHUB_ENV"]).read_text().splitlines())


def test_both_clouds_sdks_read_what_it_writes(job: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    credentials: Any = identity_pool.Credentials.from_file(job["GOOGLE_APPLICATION_CREDENTIALS"])
    assert credentials.service_account_email == "kilo-prod-preview@kilo-prod.iam.gserviceaccount.com"
    source = json.loads(Path(job["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    assert source["audience"] == f"//iam.googleapis.com/{PROVIDER}"
    assert source["credential_source"]["url"].endswith(
        f"?api-version=2&audience=https://iam.googleapis.com/{PROVIDER}"
    )
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    session: Any = botocore.session.get_session()
    process = session.get_scoped_config()["credential_process"]
    folder = Path(job["AWS_CONFIG_FILE"]).parent
    assert process == f'"{folder}/.venv/bin/python" "{folder}/.ci/aws-credentials"'
    for file in (job["AWS_CONFIG_FILE"], job["GOOGLE_APPLICATION_CREDENTIALS"]):
        assert Path(file).stat().st_mode & 0o077 == 0
    assert job["PULUMI_BACKEND_URL"] == "s3://kilo-prod-state-eu?region=eu-central-1"


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("  kubernetes:context: kilo-prod # ours", "kilo-prod"),
        ('  kubernetes:context: "kilo-prod"', "kilo-prod"),
        ("  kubernetes:context: 'kilo-prod'", "kilo-prod"),
        ("  kilo:namespace: kilo", "cluster-1"),
    ],
)
def test_the_context_is_called_as_the_stages_file_says(written: str, called: str, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.prod.yaml").write_text(f"config:\n{written}\n")
    run("update-kubeconfig", tmp_path, CLUSTER="cluster-1", STAGE="prod")
    said = (tmp_path / "called").read_text()
    assert said == f"aws eks update-kubeconfig --name cluster-1 --alias {called}\n"


def test_its_engine_is_the_one_that_tests_run_on() -> None:
    (engine,) = [each["with"] for each in ACTION["runs"]["steps"] if "pulumi/actions" in each.get("uses", "")]
    module = (Path(str(toolchain.__file__)).parent / "modules" / "pulumi" / "go.mod").read_text()
    assert f"/pkg/v3 v{engine['pulumi-version']}" in module


def test_every_workflow_gives_it_what_it_asks_for() -> None:
    """GitHub takes an input that is not given for empty."""
    given = [
        (path.name, step["with"].keys())
        for path in FILES
        for _, step in steps(load(path.name))
        if step.get("uses") == "./.github/actions/cloud"
    ]
    assert len(given) >= 5
    assert not [name for name, each in given if each != ACTION["inputs"].keys()]


def test_who_asks_for_its_credentials_may_ask_for_a_token() -> None:
    for path in FILES:
        for job, step in steps(load(path.name)):
            if step.get("uses") == "./.github/actions/cloud":
                assert job["permissions"]["id-token"] == "write", path.name
