"""Every variant of the template: its own lint, types and tests, its chart, its workflow, and its updates.

By name alone (make test TESTS=tests/scaffold), since each starts servers of its own. What needs
none is in tests/runtime/scaffold.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sandbox.toolchain import path
from tests.runtime.scaffold.variants import ROOT, VARIANTS, commit, make, template_repository
from tests.scaffold.released import VERSIONS, repository

VERSION = kubernetes_validate.latest_version()
CHART = ROOT / "charts" / "service"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template_repository(tmp_path_factory.mktemp("template") / "platform")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_own_tests_and_types_pass(variant: str, template: Path, tmp_path: Path) -> None:
    service = make(variant, template, tmp_path)
    (service / ".venv").symlink_to(BIN.parent)
    settings = service / "pyproject.toml"
    # The checkout's kilo is installed by a hook that type checkers do not follow.
    paths = f'venv = ".venv"\nextraPaths = ["{ROOT / "runtime"}"]'
    settings.write_text(settings.read_text().replace('venv = ".venv"', paths))
    run(BIN / "basedpyright", "src", cwd=service)
    run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "pythonpath=src",
        "-p",
        "no:cacheprovider",
        "tests",
        cwd=service,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_values_make_objects_that_a_cluster_takes(variant: str, template: Path, tmp_path: Path) -> None:
    service = make(variant, template, tmp_path)
    helm, values = path("helm"), service / "deploy" / "values.yaml"
    run(helm, "lint", "--strict", CHART, "--values", values, cwd=tmp_path)
    rendered = run(
        helm, "template", service.name, CHART, "--values", values, "--namespace", "kilo", cwd=tmp_path
    )
    for each in yaml.safe_load_all(rendered):
        if each is None:
            continue
        if "monitoring.coreos.com" not in each["apiVersion"]:
            kubernetes_validate.validate(each, VERSION, strict=True)
        spec = each.get("spec", {})
        pod = spec.get("template", spec.get("jobTemplate", {}).get("spec", {}).get("template"))
        if pod is not None:
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            (container,) = pod["spec"]["containers"]
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "@sha256:" in container["image"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image": {"repository": "r.test/a", "digest": "latest"}}, "digest"),
        ({"image": {"repository": "r.test/a:latest", "digest": "sha256:" + "0" * 64}}, "repository"),
        ({"image": {"repository": "r.test/a", "digest": "sha256:" + "0" * 64}, "replica": 2}, "replica"),
        ({"image": {"repository": "r.test/a", "digest": "sha256:" + "0" * 64}, "kind": "job"}, "schedule"),
    ],
)
def test_the_chart_refuses_values_that_would_do_something_else(
    values: dict[str, object], named: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [path("helm"), "template", "a", CHART, "--values", file], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert named in done.stderr


def test_its_workflows_are_such_that_github_takes(template: Path, tmp_path: Path) -> None:
    service = make("http", template, tmp_path)
    workflows = sorted((service / ".github" / "workflows").glob("*.yml"))
    assert [each.name for each in workflows] == ["ci.yml", "preview.yml"]
    run(path("actionlint"), "-no-color", "-shellcheck=", "-pyflakes=", *workflows, cwd=service)


@pytest.mark.parametrize("variant", ["http", "consumer", "job"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_service_of_every_release_comes_to_this_template_with_its_own_changes(
    version: str, variant: str, template: Path, tmp_path: Path
) -> None:
    kilo, newest = BIN / "kilo", "v999.0.0"
    old = repository(version, tmp_path / "platform")
    service = make(variant, old, tmp_path)
    commit(service, "made")
    readme = service / "README.md"
    readme.write_text(readme.read_text() + "\nOurs.\n")
    (service / "src" / service.name.replace("-", "_") / "ours.py").write_text('"""Ours."""\n')
    commit(service, "ours")
    shutil.rmtree(old / "templates")
    shutil.copytree(template / "templates", old / "templates")
    shutil.copy(template / "copier.yml", old)
    commit(old, "this template", tag=newest)
    assert json.loads(run(kilo, "svc", "update", "--json", cwd=service))["to"] == newest
    # It is what a new one is, and what was its own.
    (tmp_path / "fresh").mkdir()
    fresh = make(variant, old, tmp_path / "fresh")
    own = {"README.md", f"src/{service.name.replace('-', '_')}/ours.py"}
    assert files(service).keys() - own == files(fresh).keys() - own
    assert {name for name, content in files(fresh).items() if files(service)[name] != content} == {
        "README.md"
    }
    assert readme.read_text() == (fresh / "README.md").read_text() + "\nOurs.\n"


def files(directory: Path) -> dict[str, bytes]:
    """What git would keep of it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(directory).parts
    }


def test_an_update_keeps_the_services_own_changes(template: Path, tmp_path: Path) -> None:
    kilo = BIN / "kilo"
    repository = tmp_path / "platform"
    shutil.copytree(template, repository)
    service = make("http", repository, tmp_path)
    commit(service, "made")
    app = service / "src" / "http_service" / "app.py"
    app.write_text(app.read_text().replace("le=1_000_000", "le=5"))
    commit(service, "ours")
    runbook = repository / "templates" / "service" / "docs" / "runbook.md.jinja"
    runbook.write_text(runbook.read_text() + "\nOne more way out.\n")
    commit(repository, "theirs", tag="v0.2.0")
    answer = json.loads(run(kilo, "svc", "update", "--json", cwd=service))
    assert answer["to"] == "v0.2.0"
    assert "docs/runbook.md" in answer["changed"]
    assert "One more way out." in (service / "docs" / "runbook.md").read_text()
    assert "le=5" in app.read_text()
