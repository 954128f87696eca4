"""The ``kubernetes`` provider through the real engine: the suite of all providers, and workloads."""

from __future__ import annotations

import base64
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.cluster.client import connect
from sandbox.engine.environment import Endpoints
from tests.engine import test_conformance as suite
from tests.patience import PATIENCE_SECONDS
from tests.sandbox.cluster import kubernetes_example
from tests.sandbox.cluster.support import SERVER
from tests.sandbox.cluster.test_restart import cluster as cluster_process
from tests.sandbox.providers.examples import Example, raw
from tests.sandbox.support import STACK, Project

# Collected here with the fixtures below.
test_a_preview_touches_nothing = suite.test_a_preview_touches_nothing
test_a_refresh_finds_drift_and_an_update_mends_it = suite.test_a_refresh_finds_drift_and_an_update_mends_it
test_a_secret_is_encrypted_wherever_it_lies = suite.test_a_secret_is_encrypted_wherever_it_lies
test_lives_through_create_update_replace_and_destroy = (
    suite.test_lives_through_create_update_replace_and_destroy
)
test_what_is_wrong_is_said_with_its_path_all_at_once = (
    suite.test_what_is_wrong_is_said_with_its_path_all_at_once
)
test_what_only_an_update_knows_is_unknown_in_a_preview = (
    suite.test_what_only_an_update_knows_is_unknown_in_a_preview
)
test_what_was_deleted_behind_the_engines_back_is_found_and_made_again = (
    suite.test_what_was_deleted_behind_the_engines_back_is_found_and_made_again
)
test_what_was_made_by_hand_is_imported = suite.test_what_was_made_by_hand_is_imported

HEAD = f"""
import pulumi_kubernetes as k8s
SERVER = {SERVER!r}

def pod(*arguments, restart=None, env=(), **more):
    address = {{"name": "POD_IP", "valueFrom": {{"fieldRef": {{"fieldPath": "status.podIP"}}}}}}
    main = {{"name": "main", "image": "python:3", "args": list(arguments), "env": [address, *env], **more}}
    spec = {{"containers": [main], "terminationGracePeriodSeconds": 5}}
    if restart:
        spec["restartPolicy"] = restart
    return {{"metadata": {{"labels": {{"app": "web"}}}}, "spec": spec}}

def deployment(template, name="web", **more):
    spec = {{"selector": {{"matchLabels": {{"app": "web"}}}}, "template": template}}
    return k8s.apps.v1.Deployment("web", metadata={{"name": name, **more}}, spec=spec)

def job(program, **spec):
    template = pod("-c", program, restart="Never")
    return k8s.batch.v1.Job("job", metadata={{"name": "job"}}, spec={{"template": template, **spec}})

def serving(version):
    return pod(
        "-c", SERVER,
        env=[{{"name": "VERSION", "value": version}}],
        ports=[{{"name": "http", "containerPort": 8000}}],
        readinessProbe={{"httpGet": {{"path": "/ready", "port": "http"}}, "periodSeconds": 1}},
    )
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster_process(tmp_path_factory.mktemp("cluster")) as client:
        yield str(client.http.base_url).rstrip("/")


@pytest.fixture(scope="module")
def endpoints(url: str) -> Endpoints:
    return Endpoints(daemon=url)


@pytest.fixture(scope="module")
def example(url: str) -> Example:
    return kubernetes_example.example(url)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints) -> Path:
    return Project(tmp_path_factory.mktemp("blank"), endpoints).directory


@pytest.fixture
def project(tmp_path: Path, endpoints: Endpoints, blank: Path) -> Iterator[Project]:
    made = Project(tmp_path, endpoints, {}, blank, HEAD)
    yield made
    made.engine("destroy", code=None)


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    with connect(url) as client:
        yield client


def test_a_kind_that_is_not_served_is_an_error(project: Project, example: Example) -> None:
    for token in (example.unknown_type, example.missing_type):
        said = project.preview(raw(token, {}), code=None)
        assert said.code != 0
        assert token in said.messages


def test_up_waits_until_a_deployment_serves_and_rolls_it_over(project: Project, api: httpx.Client) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    for version in ("1", "2"):
        steps = project.up(f"deployment(serving({version!r}))").steps
        assert steps == {"web": "create" if version == "1" else "update"}
        status = api.get(path).json()["status"]
        assert (status["availableReplicas"], status["updatedReplicas"], status["replicas"]) == (1, 1, 1)
    project.up(None, "--expect-no-changes")
    project.engine("destroy")
    assert api.get(path).status_code == 404
    assert api.get("/api/v1/pods").json()["items"] == []


def test_up_fails_with_the_last_lines_of_a_workload_that_fails(project: Project) -> None:
    program = "import sys; print('no database at all'); sys.exit(7)"
    # Without a probe a container counts as ready for as long as it runs, here as on a real cluster.
    probe = {"exec": {"command": ["false"]}}
    failed = project.up(f"deployment(pod('-c', {program!r}, readinessProbe={probe!r}))", code=None)
    assert failed.code != 0
    assert "no database at all" in failed.messages
    # What was made is in the state; mending the program is enough.
    assert project.up("deployment(serving('1'))").steps == {"web": "update"}
    project.up(None, "--expect-no-changes")


def test_up_says_what_a_pod_waits_for(project: Project) -> None:
    source = "{'name': 'K', 'valueFrom': {'secretKeyRef': {'name': 'absent', 'key': 'k'}}}"
    failed = project.up(f"deployment(pod('-V', env=[{source}]))", code=None)
    assert failed.code != 0
    assert 'secret "absent" not found' in failed.messages


def test_up_waits_for_a_job_and_fails_with_it(project: Project) -> None:
    project.up("job('print(1)')")
    program = "print('half done'); raise SystemExit(1)"
    failed = project.up(f"job({program!r}, backoffLimit=0)", code=None)
    assert failed.code != 0
    assert "half done" in failed.messages
    assert project.up("job('print(2)')").code == 0


def test_a_named_object_is_deleted_before_its_replacement(project: Project, api: httpx.Client) -> None:
    program = "k8s.core.v1.ConfigMap('one', metadata={{'name': 'fixed'}}, data={{'a': '{0}'}})"
    project.up(program.format(1))
    before = api.get("/api/v1/namespaces/default/configmaps/fixed").json()
    assert project.up(program.format(2)).steps == {"one": "replace"}
    after = api.get("/api/v1/namespaces/default/configmaps/fixed").json()
    assert after["data"] == {"a": "2"}
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


_CLAIM = "/api/v1/namespaces/default/persistentvolumeclaims/data-db-0"


def test_a_disk_grows_under_a_pod_that_stays_and_never_shrinks(project: Project, api: httpx.Client) -> None:
    """The disk of a stage from before, whose claim the StatefulSet made, too."""
    before = """
spec = {"selector": {"matchLabels": {"app": "web"}}, "serviceName": "db-headless", "replicas": 1,
    "template": serving("1"), "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": CLAIM}]}
k8s.apps.v1.StatefulSet("db", metadata={"name": "db"}, spec=spec, opts=OPTS)
"""
    claim = (
        "CLAIM = {{'accessModes': ['ReadWriteOnce'], 'resources': {{'requests': {{'storage': '{0}Gi'}}}}}}\n"
    )
    owned = """
OPTS = pulumi.ResourceOptions(ignore_changes=["spec.volumeClaimTemplates"])
annotations = {"pulumi.com/skipAwait": "true", "pulumi.com/patchForce": "true"}
k8s.core.v1.PersistentVolumeClaim("claim", metadata={"name": "data-db-0", "annotations": annotations},
    spec=CLAIM, opts=pulumi.ResourceOptions(retain_on_delete=True))
"""
    project.up(claim.format(1) + "OPTS = None" + before)
    uids = [
        api.get(path).json()["metadata"]["uid"] for path in (_CLAIM, "/api/v1/namespaces/default/pods/db-0")
    ]
    assert project.up(claim.format(1) + owned + before).steps == {"claim": "create"}
    assert project.up(claim.format(2) + owned + before).steps == {"claim": "update"}
    assert api.get(_CLAIM).json()["spec"]["resources"] == {"requests": {"storage": "2Gi"}}
    assert uids == [
        api.get(path).json()["metadata"]["uid"] for path in (_CLAIM, "/api/v1/namespaces/default/pods/db-0")
    ]
    refused = project.up(claim.format(1) + owned + before, code=None)
    assert "can not be less than" in refused.messages
    project.up(claim.format(2) + owned + before)
    project.engine("destroy")
    assert api.get(_CLAIM).json()["spec"]["resources"] == {"requests": {"storage": "2Gi"}}
    api.delete(_CLAIM)


def test_a_config_map_is_changed_in_place_where_the_provider_is_configured_so(
    tmp_path: Path, endpoints: Endpoints, blank: Path
) -> None:
    project = Project(tmp_path, endpoints, {"kubernetes:enableConfigMapMutable": '"true"'}, blank, HEAD)
    program = "k8s.core.v1.ConfigMap('one', metadata={{'name': 'mutable'}}, data={{'a': '{0}'}})"
    project.up(program.format(1))
    assert project.up(program.format(2)).steps == {"one": "update"}
    project.engine("destroy")


def test_what_a_namespace_to_be_made_will_hold_is_previewed(project: Project) -> None:
    program = """
space = k8s.core.v1.Namespace("space", metadata={"name": "later"})
inside = k8s.core.v1.ConfigMap("inside", metadata={"name": "c", "namespace": "later"}, data={"a": "1"},
    opts=pulumi.ResourceOptions(depends_on=[space]))
pulumi.export("type", inside.kind)
"""
    assert project.preview(program).steps == {"space": "create", "inside": "create"}
    wrong = project.preview(program.replace('"a": "1"', '"a/b": "1"'), code=None)
    assert "valid config key" in wrong.messages
    project.up(program)
    project.up(None, "--expect-no-changes")


def test_a_secrets_data_is_secret_in_its_encoded_form_too(project: Project) -> None:
    program = """
word = pulumi.Output.secret("correct horse")
k8s.core.v1.Secret("one", metadata={"name": "s"}, string_data={"word": word})
"""
    project.up(program)
    encoded = base64.b64encode(b"correct horse").decode()
    assert encoded not in str(project.state())
    assert "correct horse" not in str(project.state())


def test_an_engine_that_was_killed_leaves_nothing_to_mend_by_hand(
    project: Project, api: httpx.Client
) -> None:
    project.program("""
k8s.core.v1.ConfigMap("first", metadata={"name": "first"}, data={})
job("import time; time.sleep(5)")
""")
    engine = subprocess.Popen(
        ["pulumi", "up", "--stack", STACK, "--yes", "--skip-preview", "--non-interactive"],
        cwd=project.directory,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not api.get("/apis/batch/v1/namespaces/default/jobs/job").is_success:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    project.up()
    assert project.up(None, "--expect-no-changes").steps == {}
    assert api.get("/apis/batch/v1/namespaces/default/jobs/job").json()["status"]["succeeded"] == 1
