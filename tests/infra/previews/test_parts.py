from __future__ import annotations

from pathlib import Path

import pytest

from infra.previews.chart import preview_values
from infra.previews.checks import Check, unreached
from infra.previews.engine import reasons_of
from infra.previews.image import check_reference, forget_images, local_image
from infra.previews.report import MARKER, Report
from infra.previews.settings import namespace_of, stack_of
from kilo.errors import BadInput
from kilo.scaffold.local_image import read_image
from kilo.scaffold.template import Service
from tests.infra.previews.support import IMAGE, settings

LONGEST = "a" + "b" * 39


def test_the_longest_names_fit_into_a_namespace() -> None:
    assert len(namespace_of(f"pr-999999999-{LONGEST}")) <= 63
    assert stack_of("dev", "pr-1-a") == "preview-dev-pr-1-a"


def test_the_time_is_told_in_utc() -> None:
    assert settings().expires == "2026-03-01T09:00:00Z"


def test_a_preview_has_one_copy_of_its_image_and_a_database_in_its_namespace() -> None:
    given = {
        "kind": "http",
        "image": {"repository": "r.test/orders", "digest": "sha256:0", "pullSecrets": ["mine"]},
        "replicas": 5,
        "autoscaling": {"enabled": True, "maxReplicas": 9},
        "canary": {"digest": "sha256:1"},
        "database": {"secret": "other", "network": "10.0.0.0/8", "migrate": {"enabled": True, "secret": "o"}},
        "network": {"from": ["cron"], "to": [{"network": "192.0.2.0/24", "port": 443}]},
        "environment": {"COLOUR": "blue"},
    }
    made = preview_values(given, "orders", IMAGE, {"namespace": "monitoring", "labels": {}}, database=True)
    assert made["replicas"] == 1
    assert made["autoscaling"] == {"enabled": False}
    assert made["image"]["pullSecrets"] == ["mine"]
    assert f"{made['image']['repository']}@{made['image']['digest']}" == IMAGE
    assert made["canary"] == {"digest": ""}
    assert made["database"]["network"] == "", "the stage's database is not reached"
    assert made["database"]["secret"] == "orders-database"
    assert made["database"]["migrate"] == {"enabled": True, "secret": "orders-database-owner"}
    assert {"workload": "postgres", "port": 5432} in made["network"]["to"]
    assert made["network"]["from"] == ["cron", "gateway"]
    assert made["environment"] == {"COLOUR": "blue"}
    assert given["replicas"] == 5, "what was given stays as it was"


@pytest.mark.parametrize(
    "reference", ["orders", "r.test/orders:1", "r.test/orders@sha256:abc", "R.test/o@sha256:" + "a" * 64, ""]
)
def test_an_image_without_its_digest_is_refused(reference: str) -> None:
    with pytest.raises(BadInput, match="with its digest"):
        check_reference(reference)


OUTPUT = """ +  kubernetes:batch/v1:Job seed creating (5s) error: 1 error occurred:
Policies:
    ✅ kilo@v0.1.0 (local: infra/policy)

Diagnostics:
  kubernetes:batch/v1:Job (seed):
    error: 1 error occurred:
    \t* Job preview-pr-1-a/seed failed: Job has reached the specified backoff limit

  pulumi:pulumi:Stack (kilo-preview-dev-pr-1-a):
    error: update failed

Resources:
    + 83 created
"""
REFUSED = """Policies:
    ❌ kilo@v0.1.0 (local: infra/policy)
        - [mandatory]  workload-hardened  (kubernetes:apps/v1:Deployment: orders)
          Pods keep the restricted Pod Security Standard.
          orders: container service may run as root; set runAsNonRoot

Diagnostics:
  pulumi:pulumi:Stack (x):
    error: preview failed
"""


def test_of_the_engines_words_the_reasons_are_told() -> None:
    assert reasons_of(OUTPUT) == [
        "Job preview-pr-1-a/seed failed: Job has reached the specified backoff limit"
    ]
    assert any("workload-hardened" in reason for reason in reasons_of(REFUSED))
    assert reasons_of("error: no stack named 'x' found") == ["no stack named 'x' found"]
    assert reasons_of("") == ["no reason given"]


def service(directory: Path, *, entrypoint: str = '["python", "-m", "orders"]') -> Service:
    (directory / "src" / "orders" / "__pycache__").mkdir(parents=True)
    (directory / "src" / "orders" / "__init__.py").write_text("")
    (directory / "src" / "orders" / "__pycache__" / "x.pyc").write_text("")
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "orders"\ndependencies = ["kilo[web]~=0.1"]\n'
    )
    (directory / "Dockerfile").write_text(f"FROM base\nENTRYPOINT {entrypoint}\n")
    return Service(directory, {"name": "orders"})


def test_the_sources_of_the_moment_are_kept_as_an_image_until_the_preview_goes(tmp_path: Path) -> None:
    made, home = service(tmp_path / "orders"), tmp_path / "platform"
    first = local_image(made, home, "pr-1-orders")
    assert local_image(made, home, "pr-1-orders") == first, "the same sources, the same image"
    image = read_image(home / ".kilo", first)
    assert image is not None
    assert image.entrypoint == ("python", "-m", "orders")
    copy = Path(image.environment["PYTHONPATH"])
    assert (copy / "orders" / "__init__.py").exists()
    assert not list(copy.rglob("*.pyc"))
    (made.directory / "src" / "orders" / "__init__.py").write_text("CHANGED = True\n")
    assert (copy / "orders" / "__init__.py").read_text() == "", "what runs does not change under it"
    second, other = local_image(made, home, "pr-1-orders"), local_image(made, home, "pr-2-orders")
    assert len({first, second, other}) == 3
    forget_images("pr-1-orders", home, but=second)
    assert read_image(home / ".kilo", first) is None
    assert read_image(home / ".kilo", second) is not None
    forget_images("pr-1-orders", home)
    assert [path.read_text() for path in home.glob(".kilo/images/*/preview")] == ["pr-2-orders"]


def test_what_an_image_lacks_is_said_with_what_is_right(tmp_path: Path) -> None:
    made = service(tmp_path / "shell", entrypoint="python -m orders")
    with pytest.raises(BadInput, match="no ENTRYPOINT as a list"):
        local_image(made, tmp_path, "pr-1-orders")
    made = service(tmp_path / "lacks")
    project = made.directory / "pyproject.toml"
    project.write_text(project.read_text().replace("kilo[web]", "no-such-package-anywhere"))
    with pytest.raises(BadInput, match=r"no-such-package-anywhere.*make environment"):
        local_image(made, tmp_path, "pr-1-orders")
    for wrong in (
        b"\xff",
        b'project = "orders"',
        b"[project]\ndependencies = [1]",
        b"[project]\ndependencies = 1",
    ):
        project.write_bytes(wrong)
        with pytest.raises(BadInput, match=r"pyproject\.toml: project\.dependencies can't be read"):
            local_image(made, tmp_path, "pr-1-orders")


def test_a_check_that_nobody_made_is_never_green() -> None:
    checks = unreached("the rollout failed")
    assert {check.state for check in checks} == {"not checked"}
    red = Report(settings(), "", [Check("rollout", "red", 1.0, "it broke"), *checks], 2.0)
    assert not red.is_green
    assert red.document()["green"] is False


def test_a_comment_holds_no_markup_of_others() -> None:
    hostile = Check("smoke test", "red", 0.5, "GET /`|<img src=x>@everyone\n# big: 500, not 200")
    text = Report(settings(), "http://127.0.0.1:1", [hostile], 1.0).markdown()
    assert text.startswith(MARKER)
    (line,) = [each for each in text.splitlines() if "smoke test" in each]
    assert line.endswith("| `GET /'\\|<img src=x>@everyone # big: 500, not 200` |")
