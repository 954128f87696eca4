"""Whether what a stage needs and doesn't make itself is there: it looks, and changes nothing.

What may not be looked at is unknown, and not taken for there. Left out: quotas of other services than IAM,
which an account's console shows, and the rights of who deploys, which only a deployment tries and
:mod:`infra.target.rights` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.settings import Settings
from infra.target.kubeconfig import Cluster
from infra.target.refusal import wrong_account, wrong_cluster
from kilo.errors import KiloError

State = Literal["there", "missing", "unknown"]

GOOGLE_APIS = (
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
)
_CRDS = ("alertmanagerconfigs", "podmonitors", "prometheusrules", "servicemonitors")
_GROUP = "monitoring.coreos.com"
ROLES_OF_A_STAGE = 13
"""At most, with the one that copies between regions."""


@dataclass(frozen=True)
class Finding:
    """One thing that a stage needs."""

    where: str
    what: str
    state: State
    advice: str = ""
    """What to do about it, where it isn't there."""


def of_aws(settings: Settings, client: Callable[[str], Any]) -> Iterator[Finding]:
    """What is needed in AWS; ``client`` makes a client of a service, such as ``iam``."""
    where, aws = "AWS", settings.aws
    try:
        account = str(client("sts").get_caller_identity()["Account"])
    except Exception as error:
        # Each SDK has its own kinds of having no credentials.
        yield Finding(where, "credentials", "unknown", _short(error))
        return
    for advice in wrong_account(settings, account):
        yield Finding(where, f"account {aws.account_id}", "missing", advice)
        return
    yield Finding(where, f"account {aws.account_id}", "there")
    iam, secrets, s3 = client("iam"), client("secretsmanager"), client("s3")
    yield _asked(
        where,
        f"OIDC provider {aws.oidc_provider_arn.partition(':oidc-provider/')[2]}",
        lambda: iam.get_open_id_connect_provider(OpenIDConnectProviderArn=aws.oidc_provider_arn),
        "make one of the cluster's issuer for the audience sts.amazonaws.com",
    )
    for arn in (*aws.key_administrators, *aws.key_auditors, *settings.backups.restorers):
        kind, _, path = arn.rpartition(":")[2].partition("/")
        name = path.rpartition("/")[2]
        ask = _getter(iam, kind, name)
        yield _asked(where, f"{kind} {name}", ask, "KMS refuses policies that name nobody; make it first")
    yield _room_for_roles(settings, iam)
    yield _secret(secrets, settings.database.url_secret_id)
    backups = settings.backups
    for bucket in filter(
        None, (backups.primary.bucket, settings.audit.bucket, backups.replica and backups.replica.bucket)
    ):
        yield _bucket(s3, bucket)


def _room_for_roles(settings: Settings, iam: Any) -> Finding:
    """A first deployment makes all of its roles; one that was deployed has them already."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  with the extra `platform`

    what = f"room for {ROLES_OF_A_STAGE} roles"
    try:
        found: Mapping[str, int] = iam.get_account_summary()["SummaryMap"]
    except (BotoCoreError, ClientError) as error:
        return Finding("AWS", what, "unknown", _short(error))
    left = found["RolesQuota"] - found["Roles"]
    try:
        iam.get_role(RoleName=f"kilo-{settings.stage}-ingest")
    except ClientError:
        if left < ROLES_OF_A_STAGE:
            return Finding("AWS", what, "missing", f"{left} are left in the account; have the quota raised")
    return Finding("AWS", what, "there")


def _getter(iam: Any, kind: str, name: str) -> Callable[[], object]:
    return lambda: iam.get_role(RoleName=name) if kind == "role" else iam.get_user(UserName=name)


def _asked(where: str, what: str, ask: Callable[[], object], advice: str) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  with the extra `platform`

    try:
        ask()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        missing = code.startswith(("NoSuchEntity", "ResourceNotFound"))
        return Finding(where, what, "missing" if missing else "unknown", advice if missing else code)
    except BotoCoreError as error:
        return Finding(where, what, "unknown", _short(error))
    return Finding(where, what, "there")


def _secret(secrets: Any, name: str) -> Finding:
    """The secret, with a value: the bootstrap makes its place alone."""
    described: dict[str, Any] = {}
    what = f"secret {name}"
    found = _asked(
        "AWS",
        what,
        lambda: described.update(secrets.describe_secret(SecretId=name)),
        f"aws secretsmanager create-secret --name {name}, then put-secret-value (docs/prerequisites.md)",
    )
    if found.state == "there" and not described.get("VersionIdsToStages"):
        advice = (
            f"no value: aws secretsmanager put-secret-value --secret-id {name} --secret-string file://FILE"
        )
        return Finding("AWS", what, "missing", advice)
    return found


def _bucket(s3: Any, bucket: str) -> Finding:
    """A bucket's name is one for the world: it must be nobody's yet, or the account's."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  with the extra `platform`

    what = f"name {bucket} in S3"
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404:
            return Finding("AWS", what, "there")
        advice = "it may be somebody else's: choose another, or see that the role may list it"
        return Finding("AWS", what, "unknown", advice)
    except BotoCoreError as error:
        return Finding("AWS", what, "unknown", _short(error))
    return Finding("AWS", what, "there")


def of_google(settings: Settings, get: Callable[[str], tuple[int, Mapping[str, Any]]]) -> Iterator[Finding]:
    """Which APIs are on; ``get`` asks the Service Usage API for a path and answers with status and body."""
    where, project = "Google Cloud", settings.gcp.project
    for api in GOOGLE_APIS:
        try:
            status, found = get(f"/v1/projects/{project}/services/{api}")
        except Exception as error:
            # As with AWS: there are many kinds of having no credentials.
            yield Finding(where, "credentials", "unknown", _short(error))
            return
        if status != 200:
            yield Finding(where, api, "unknown", f"HTTP {status}; see that {project} is the right project")
        elif found.get("state") == "ENABLED":
            yield Finding(where, api, "there")
        else:
            yield Finding(where, api, "missing", f"gcloud services enable {api} --project {project}")


def of_cluster(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    """What is needed in the cluster."""
    where = "Kubernetes"
    try:
        mistakes = list(wrong_cluster(settings, cluster))
    except KiloError as error:
        yield Finding(where, f"context {cluster.context}", "unknown", str(error))
        return
    yield Finding(
        where, f"context {cluster.context}", "missing" if mistakes else "there", "; ".join(mistakes)
    )
    for plural in _CRDS:
        name = f"{plural}.{_GROUP}"
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        yield _object(cluster, f"CRD {name}", path, "install the Prometheus operator")
    classes = {
        settings.bus.storage_class,
        settings.backups.drill_storage_class,
        settings.previews.storage_class,
    }
    for name in sorted(filter(None, classes)):
        yield _storage_class(cluster, name)
    if alerts := settings.monitoring.alerts:
        name, namespace = alerts.webhook_secret, settings.namespace
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        advice = f"kubectl --namespace {namespace} create secret generic {name} --from-literal=url=URL"
        yield _object(cluster, f"Secret {name}", path, advice)
    if settings.bus.kafka and settings.bus.kafka.access:
        for name in sorted({*settings.bus.kafka.access.secret_names.values()}):
            path = f"/api/v1/namespaces/{settings.namespace}/secrets/{name}"
            yield _object(cluster, f"Secret {name}", path, "give it a user of Kafka, see docs/outbox.md")
    yield _selectors(settings, cluster)


def _object(cluster: Cluster, what: str, path: str, advice: str) -> Finding:
    try:
        there = cluster.metadata(path) is not None
    except KiloError as error:
        return Finding("Kubernetes", what, "unknown", str(error))
    return Finding("Kubernetes", what, "there" if there else "missing", "" if there else advice)


def _storage_class(cluster: Cluster, name: str) -> Finding:
    what = f"StorageClass {name}"
    try:
        found = cluster.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
        if found is None:
            return Finding("Kubernetes", what, "missing", "make it, or name another one in the stage's file")
        driver = str(found.get("provisioner"))
        of_old = "/" in driver
        there = of_old or cluster.get(f"/apis/storage.k8s.io/v1/csidrivers/{driver}") is not None
    except KiloError as error:
        return Finding("Kubernetes", what, "unknown", str(error))
    if not there:
        return Finding("Kubernetes", what, "missing", f"install its CSI driver, {driver}")
    return Finding("Kubernetes", what, "there")


def _selectors(settings: Settings, cluster: Cluster) -> Finding:
    """Whether some Prometheus takes the stage's rules and monitors, by their labels."""
    what, labels = "operator's selectors", settings.monitoring.labels
    try:
        listed = cluster.get(f"/apis/{_GROUP}/v1/prometheuses")
    except KiloError as error:
        return Finding("Kubernetes", what, "unknown", str(error))
    items: list[dict[str, Any]] = (listed or {}).get("items") or []
    if not items:
        return Finding("Kubernetes", what, "missing", "there is no Prometheus of the operator's")
    wanted: list[str] = []
    for item in items:
        chosen = [item["spec"].get(name) for name in ("ruleSelector", "serviceMonitorSelector")]
        if any(each is None or each.get("matchExpressions") for each in chosen):
            # None selects nothing, and expressions are not followed here.
            continue
        asked = {key: value for each in chosen for key, value in (each.get("matchLabels") or {}).items()}
        if asked.items() <= labels.items():
            return Finding("Kubernetes", what, "there")
        wanted += [f"{key}: {value}" for key, value in asked.items()]
    if not wanted:
        advice = "no Prometheus selects by plain labels; see that it takes rules and monitors"
        return Finding("Kubernetes", what, "unknown", advice)
    advice = f"set kilo:monitoring.labels to {{ {', '.join(dict.fromkeys(wanted))} }}"
    return Finding("Kubernetes", what, "missing", advice)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
