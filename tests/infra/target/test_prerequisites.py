"""What a stage needs besides itself, looked for by the clouds' own APIs; nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.configuration import read_stage_file
from infra.settings import Settings
from infra.target.kubeconfig import Cluster
from infra.target.prerequisites import GOOGLE_APIS, Finding, of_aws, of_cluster, of_google
from kilo import cli
from sandbox.servers.moto import MotoServer
from tests.infra.target.test_kubeconfig import ISSUER, ISSUER_PATH, ApiServer, api, kubeconfig, write

__all__ = ["api", "kubeconfig"]

ROOT = Path(__file__).parents[3]
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    server = MotoServer(tmp_path_factory.mktemp("aws"))
    server.start()

    def client(service: str) -> Any:
        made: Any = boto3.client
        return made(
            service,
            endpoint_url=server.url,
            region_name="eu-central-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )

    yield client
    server.stop()


def prod(account: str = ACCOUNT) -> Settings:
    """Prod in the account that moto answers for."""
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")
    text = settings.aws.model_dump_json().replace("321098765432", account)
    restorers = (f"arn:aws:iam::{account}:role/restorer",)
    backups = settings.backups.model_copy(update={"restorers": restorers})
    own = {"aws": type(settings.aws).model_validate_json(text), "backups": backups}
    return settings.model_copy(update=own)


def states(found: list[Finding]) -> dict[str, str]:
    return {each.what: each.state for each in found}


def test_what_is_missing_in_aws_is_told_with_what_makes_it(aws: Callable[[str], Any]) -> None:
    settings = prod()
    before = states(list(of_aws(settings, aws)))
    assert before.pop(f"account {ACCOUNT}") == "there"
    buckets = {what: state for what, state in before.items() if what.startswith("name ")}
    assert set(buckets.values()) == {"there"}
    assert before.pop("room for 13 roles") == "there"
    assert before["role restorer"] == "missing"
    assert {state for what, state in before.items() if what not in buckets} == {"missing"}
    iam = aws("iam")
    for name in ("key-administrator", "deployer", "drift", "restorer"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    iam.create_open_id_connect_provider(Url=f"https://{ISSUER}", ThumbprintList=["0" * 40])
    secret = settings.database.url_secret_id
    # As the bootstrap makes it.
    aws("secretsmanager").create_secret(Name=secret)
    (place,) = (each for each in of_aws(settings, aws) if each.what == f"secret {secret}")
    assert (place.state, place.advice.partition(":")[0]) == ("missing", "no value")
    aws("secretsmanager").put_secret_value(SecretId=secret, SecretString="x")
    found = list(of_aws(settings, aws))
    assert set(states(found).values()) == {"there"}
    # Looking made nothing.
    assert aws("s3").list_buckets()["Buckets"] == []
    (other,) = of_aws(prod("999999999999"), aws)
    assert (other.state, other.what) == ("missing", "account 999999999999")


def test_which_google_apis_are_off_is_told() -> None:
    asked: list[str] = []

    def get(path: str) -> tuple[int, dict[str, Any]]:
        asked.append(path)
        return (
            (403, {}) if "sts" in path else (200, {"state": "DISABLED" if "storage" in path else "ENABLED"})
        )

    found = {each.what: each for each in of_google(prod(), get)}
    assert asked == [f"/v1/projects/kilo-prod/services/{api}" for api in GOOGLE_APIS]
    assert found["storage.googleapis.com"].state == "missing"
    assert found["storage.googleapis.com"].advice.startswith("gcloud services enable storage.")
    assert found["sts.googleapis.com"].state == "unknown"
    assert found["iam.googleapis.com"].state == "there"


def answers() -> dict[str, tuple[int, Any]]:
    """A cluster in which all is there."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    selector = {"matchLabels": {}}
    return {
        ISSUER_PATH: (200, {"issuer": f"https://{ISSUER}"}),
        **{
            f"{crds}/{plural}.monitoring.coreos.com": (200, {})
            for plural in ("alertmanagerconfigs", "podmonitors", "prometheusrules", "servicemonitors")
        },
        "/apis/storage.k8s.io/v1/storageclasses/gp3": (200, {"provisioner": "ebs.csi.aws.com"}),
        "/apis/storage.k8s.io/v1/csidrivers/ebs.csi.aws.com": (200, {"kind": "CSIDriver"}),
        "/api/v1/namespaces/kilo-prod/secrets/alert-webhook": (200, {"metadata": {"name": "alert-webhook"}}),
        "/apis/monitoring.coreos.com/v1/prometheuses": (
            200,
            {"items": [{"spec": {"ruleSelector": selector, "serviceMonitorSelector": selector}}]},
        ),
    }


def test_what_is_missing_in_the_cluster_is_told(api: ApiServer, kubeconfig: Path) -> None:
    write(kubeconfig, api, {"token": "right"})
    settings = read_stage_file(ROOT / "Pulumi.prod.yaml")

    def found() -> dict[str, Finding]:
        return {each.what: each for each in of_cluster(settings, Cluster("kilo-prod"))}

    api.answers = answers()
    assert {each.state for each in found().values()} == {"there"}
    for path, what, advice in (
        ("/apis/storage.k8s.io/v1/csidrivers/ebs.csi.aws.com", "StorageClass gp3", "ebs.csi.aws.com"),
        ("/apis/storage.k8s.io/v1/storageclasses/gp3", "StorageClass gp3", "make it"),
        ("/api/v1/namespaces/kilo-prod/secrets/alert-webhook", "Secret alert-webhook", "create secret"),
        ("/apis/monitoring.coreos.com/v1/prometheuses", "operator's selectors", "no Prometheus"),
    ):
        api.answers = {other: answer for other, answer in answers().items() if other != path}
        assert found()[what].state == "missing"
        assert advice in found()[what].advice
        api.answers[path] = (403, {})
        assert found()[what].state == "unknown"
    labelled = {"matchLabels": {"release": "monitoring"}}
    items = [{"spec": {"ruleSelector": labelled, "serviceMonitorSelector": labelled}}]
    api.answers = {**answers(), "/apis/monitoring.coreos.com/v1/prometheuses": (200, {"items": items})}
    assert found()["operator's selectors"].advice == "set kilo:monitoring.labels to { release: monitoring }"
    api.answers = {**answers(), ISSUER_PATH: (200, {"issuer": "https://elsewhere"})}
    assert found()["context kilo-prod"].state == "missing"


def test_the_command_says_what_it_could_not_see_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    nowhere = str(tmp_path / "nothing")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "KUBECONFIG", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.chdir(ROOT)
    assert cli.main(["check", "--cloud"]) == 2
    assert "--cloud looks with the credentials of one stage" in capsys.readouterr().err
    assert cli.main(["check", "--cloud", "-s", "prod", "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [each["where"] for each in found] == ["AWS", "Google Cloud", "Kubernetes"]
    assert {each["state"] for each in found} == {"unknown"}
    assert "prod: 3 of 3 are not known to be there" in said.err
