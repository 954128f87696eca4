"""``kilo promote apply --from dev --to stage`` as a person calls it: digests alone go on, or nothing does.

Real are the command and the one that it asks the other stage by, the repository, the registry, the database
and Prometheus; the engine notes what it is asked for: what a real one does, tests/e2e shows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.promotion.lead import leading
from infra.promotion.stage_file import PromotionFile
from kilo.fle.audit.log import read
from kilo.fle.audit.signatures import check_signatures, people_of
from kilo.observe import metrics
from tests.commands import Commands
from tests.events import make_outputs
from tests.infra.ramps.test_publish import git
from tests.noting_engine import calls, noting_engine
from tests.people import make_keys
from tests.runtime.gates.test_gates import AGES
from tests.runtime.goals.conftest import History, history
from tests.runtime.registry.conftest import with_api
from tests.runtime.registry.images import Shelf

__all__ = ["history", "with_api"]

# Each calls some commands, one after the other.
pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[3]
UPDATES = {"resourcePlans": {"a": {"steps": ["update"]}}}
SOAK = "soak_factor: 0.001, verify_minutes: 60"
"""A gate of 86 seconds, and a look of three and a half."""
OURS = "ghcr.io/kilo-platform/kilo:0.1.0"


@dataclass
class Two:
    """Both stages of one project, and the command that promotes from the one to the other.

    Attributes:
        here: the repository that dev's image is pushed to; ``there`` is the one that stage's is mirrored to.
    """

    project: Path
    url: str
    here: Shelf
    there: Shelf
    digest: str
    commands: Commands
    environment: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def file(self) -> Path:
        return self.project / "Pulumi.stage.yaml"

    def promote(self, *approvers: str) -> subprocess.CompletedProcess[str]:
        given = [part for who in approvers for part in ("--approver", f"{who}={self.project}/keys/{who}.pem")]
        asked = ("--from", "dev", "--to", "stage", "--as", "ana", *given, "--json", "--commit")
        done = self.commands.run("promote", "apply", *asked, env=self.environment, cwd=self.project)
        said = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, *said)

    def steps(self) -> list[dict[str, Any]]:
        with psycopg.connect(self.url) as connection:
            found = [json.loads(entry.text) for entry in read(connection)]
        return [each["details"] for each in found if each["action"] == "promotion-step"]

    def deployed(self, **config: Any) -> None:
        """Have the engine's record and its configuration say the same, and that it ended two minutes ago."""
        stored = {key: {"value": json.dumps(value)} for key, value in config.items()}
        update = {
            "kind": "update",
            "result": "succeeded",
            "version": 7,
            "endTime": datetime.fromtimestamp(time.time() - 120, UTC).isoformat(),
            "environment": {"git.head": git(self.project, "rev-parse", "HEAD").strip(), "git.dirty": "false"},
            "config": stored,
        }
        (self.project / "history").write_text(json.dumps([update]))
        (self.project / "config").write_text(json.dumps(stored))


def outputs_of(stage: str, prometheus: str, registry: str, people: dict[str, str], folder: Path) -> Path:
    document = make_outputs(keys={}).model_dump(mode="json")
    document["stage"] = stage
    document["monitoring"]["prometheus_url"] = prometheus
    document["registries"]["primary"]["url"] = registry
    listed = [{"name": name, "public_key": key} for name, key in people.items()]
    document["field_encryption"]["principals"] = listed
    path = folder / f"{stage}.json"
    path.write_text(json.dumps(document))
    return path


def flowing(url: str, over: threading.Event) -> None:
    """Events that come and are delivered for as long as somebody looks."""
    with psycopg.connect(url, autocommit=True) as connection:
        number = 0
        while not over.wait(0.2):
            number += 1
            connection.execute(
                "WITH e AS (INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload)"
                " VALUES (%(f)s, 'acme', 'order', '1', 'order.created', '{}'))"
                " INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
                " VALUES ('events', %(f)s, now(), 'acme', 'worker')",
                {"f": f"flowing-{number}"},
            )


FIGURES = {
    metrics.OUTBOX_LOST.name: 0.0,
    metrics.OUTBOX_ROWS_WAITING.name: 0.0,
    f'{metrics.OBJECTIVE_BUDGET.name}{{tenant="acme", objective="availability"}}': 0.001,
    'tenant:error_ratio:rate5m{tenant="acme"}': 0.0,
    f'{metrics.MIRROR_DRIFT.name}{{repository="kilo", finding="drift"}}': 0.0,
    metrics.MIRROR_COMPARED_LAST_SUCCESS.name: time.time(),
}


class Exporter(BaseHTTPRequestHandler):
    """A stage that is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("".join(f"{name} {value}\n" for name, value in FIGURES.items()).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def two(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    history: History,
    with_api: str,
    exporter: str,
    commands: Commands,
) -> Iterator[Two]:
    for series, value in FIGURES.items():
        history.add(series, value, ages=AGES)
    history.start(targets=(exporter,))
    project = tmp_path / "project"
    project.mkdir()
    own = f"p{time.time_ns()}"
    here, there = (Shelf(with_api, f"{own}/{stage}/kilo") for stage in ("dev", "stage"))
    digest = here.image(b"one", tag="0.1.0")["digest"]
    assert there.image(b"one")["digest"] == digest
    state = {
        "deployment": {
            "resources": [
                {"inputs": {"image": f"{here.name}:0.1.0"}},
                {"inputs": {"image": f"{there.name}@{digest}"}},
            ]
        }
    }
    noting_engine(project, monkeypatch, state=state, plan=UPDATES)
    people = make_keys(project / "keys")
    for stage in ("dev", "stage"):
        text = (ROOT / f"Pulumi.{stage}.yaml").read_text().replace(OURS, f"{here.name}:0.1.0")
        (project / f"Pulumi.{stage}.yaml").write_text(f"{text.rstrip()}\n  kilo:promotion: {{ {SOAK} }}\n")
    shutil.copy(ROOT / "Pulumi.yaml", project)
    (project / "program.py").write_text("one = 1\n")
    (project / ".gitignore").write_text("bin\nkeys\nstate\nplan\nhistory\nconfig\ncalls\nmoves\n*.json\n")
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "origin")
    git(project, "init", "--quiet", "--initial-branch", "main")
    for name, value in (("user.name", "ana"), ("user.email", "ana@example.com")):
        git(project, "config", name, value)
    git(project, "remote", "add", "origin", str(tmp_path / "origin"))
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    git(project, "push", "--quiet", "--set-upstream", "origin", "main")
    files = {
        stage: outputs_of(stage, history.url, shelf.name.removesuffix("/kilo"), people, project)
        for stage, shelf in (("dev", here), ("stage", there))
    }
    made = Two(project, database_url, here, there, digest, commands)
    made.environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KILO_")},
        "DATABASE_URL": database_url,
        "KILO_OUTPUTS": str(files["stage"]),
        "KILO_FROM_DATABASE_URL": database_url,
        "KILO_FROM_OUTPUTS": str(files["dev"]),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    made.deployed(outbox={"workers": 1})
    with psycopg.connect(database_url, autocommit=True) as connection:
        # As long ago as a gate looks back, since what is young counts for nothing.
        connection.execute(
            "WITH e AS (INSERT INTO events"
            " (fingerprint, tenant, received_at, aggregate, aggregate_id, kind, payload)"
            " SELECT 'before-' || n, 'acme', now() - n * interval '5 s', 'order', '1', 'order.created', '{}'"
            " FROM generate_series(1, 60) n RETURNING fingerprint, received_at)"
            " INSERT INTO inbox (consumer, fingerprint, received_at, created_at, tenant, publisher)"
            " SELECT 'events', fingerprint, received_at, received_at, 'acme', 'worker' FROM e"
        )
        # Whoever deployed looked afterwards, and noted the digest that the tag had.
        status = ("promote", "status", "--from", "dev", "--json")
        looked = {**made.environment, "KILO_OUTPUTS": str(files["dev"])}
        assert commands.run(*status, env=looked, cwd=project).returncode == 0
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE promotion_releases SET observed_at = now() - interval '115 s'")
    over = threading.Event()
    thread = threading.Thread(target=flowing, args=(database_url, over), daemon=True)
    thread.start()
    yield made
    over.set()
    thread.join()


def test_digests_go_on_under_approval_and_nothing_is_built(two: Two) -> None:
    before = two.file.read_text()
    done = two.promote("bo")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["phase"] == "verified"
    pinned = f"{two.there.name}@{two.digest}"
    assert PromotionFile(two.file).settings.images.runtime == pinned
    changed = set(two.file.read_text().splitlines()) - set(before.splitlines())
    assert [line.strip() for line in changed] == [f'kilo:images: {{ runtime: "{pinned}" }}']
    # What was planned is what was committed and pushed, and it is all that the engine was asked for.
    assert set(calls(two.project)) == {"stack", "config", "preview", "up"}
    assert calls(two.project).count("up") == 1
    assert git(two.project, "show", "origin/main:Pulumi.stage.yaml") == two.file.read_text()
    assert git(two.project, "log", "-1", "--format=%s", "origin/main").strip() == "Promote to stage"
    begun, deployed, verified = two.steps()
    assert [each["act"] for each in (begun, deployed, verified)] == ["begun", "deployed", "verified"]
    assert (begun["from"], list(begun["approvals"])) == ("dev", ["bo"])
    assert len(deployed["plan"]) == len(deployed["state"]) == 64
    with psycopg.connect(two.url) as connection:
        outputs = make_outputs(keys={}).model_validate_json(
            (two.project / "stage.json").read_text(), extra="ignore"
        )
        assert check_signatures(read(connection), "stage", people_of(outputs))[1] == []


def moved(two: Two) -> None:
    assert two.here.image(b"two", tag="0.1.0")["digest"] != two.digest


def not_mirrored(two: Two) -> None:
    path = two.project / "stage.json"
    path.write_text(path.read_text().replace(two.there.repository.removesuffix("/kilo"), "elsewhere"))


def undeployed(two: Two) -> None:
    (two.project / "config").write_text(json.dumps({"outbox": {"value": json.dumps({"workers": 2})}}))


def another_program(two: Two) -> None:
    (two.project / "program.py").write_text("one = 2\n")


def nothing(_two: Two) -> None:
    """Nothing is wrong but who approves."""


@pytest.mark.parametrize(
    ("change", "approvers", "said"),
    [
        (nothing, ["ana"], "ana asks for the promotion, so somebody else must approve it"),
        (nothing, [], "a promotion to stage needs somebody else's approval"),
        (moved, ["bo"], "its tag has sha256:"),
        (not_mirrored, ["bo"], "does not have it; mirror it first"),
        (undeployed, ["bo"], "outbox is not what was deployed, and would ride along"),
        (another_program, ["bo"], "program.py is not as in the release's commit"),
    ],
    ids=["the requester approves", "nobody approves", "moved", "not mirrored", "undeployed", "program"],
)
def test_what_is_not_as_it_must_be_is_refused_with_its_reason(
    two: Two, change: Callable[[Two], None], approvers: list[str], said: str
) -> None:
    change(two)
    before = two.file.read_text()
    done = two.promote(*approvers)
    assert (done.returncode, done.stdout and json.loads(done.stdout)) == (1, ""), done.stderr
    assert said in done.stderr
    assert "up" not in calls(two.project)
    assert (two.file.read_text(), two.steps()) == (before, [])


def test_a_plan_older_than_the_state_is_refused_and_made_anew_by_the_same_command(two: Two) -> None:
    (two.project / "moves").touch()
    done = two.promote("bo")
    assert (done.returncode, "the plan is older than the state" in done.stderr) == (1, True), done.stderr
    assert "up" not in calls(two.project)
    assert [each["act"] for each in two.steps()] == ["begun"]
    (two.project / "moves").unlink()
    # What was approved is in the log: nobody is asked again.
    done = two.promote()
    assert done.returncode == 0, done.stderr
    assert [each["act"] for each in two.steps()] == ["begun", "deployed", "verified"]


def test_of_two_at_once_the_second_is_refused(two: Two) -> None:
    with leading(two.url, "public", "stage", "cy, process 7", "") as journal:
        journal.held()
        done = two.promote("bo")
    assert done.returncode == 1
    assert "cy, process 7 leads a promotion to stage at this moment" in done.stderr
    assert two.steps() == []
