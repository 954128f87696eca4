"""The program goes through the official Kubernetes provider onto a real API server, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kilo.changes.preview import parse_events
from sandbox import toolchain
from sandbox.rehearsal import Rehearsal
from tests.kubernetes.cluster import RBAC, RealCluster

ROOT = Path(__file__).parents[2]
STAGE = "dev"

SECRET = """
    import pulumi_kubernetes as kubernetes

    within = {{"name": "word", "namespace": settings.namespace}}
    inside = pulumi.ResourceOptions(depends_on=[namespace])
    kubernetes.core.v1.Secret("word", metadata=within, string_data={{"word": "{word}"}}, opts=inside)
"""
LAST_STEP = "    create_monitoring(settings, namespace)\n"

pytestmark = pytest.mark.timeout(1200)


class OnRealCluster(Rehearsal):
    """A rehearsal whose kubernetes provider is the official one, with a real cluster behind it."""

    def __init__(self, cluster: RealCluster) -> None:
        super().__init__()
        self.kubeconfig = cluster.kubeconfig

    def run(self, source: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine on the stage."""
        return self._engine(source, STAGE, [*command])

    def _pulumi(self, folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self._variables = {
            **self._variables,
            "PATH": f"{toolchain.path('kubernetes-provider').parent}{os.pathsep}{self._variables['PATH']}",
            # Otherwise the plugins in the engine's home, which are the sandbox's, come before those on PATH.
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
            "KUBERNETES_PROVIDER_FILES": str(toolchain.path("kubernetes-provider-files")),
            "KUBECONFIG": str(self.kubeconfig),
        }
        return super()._pulumi(folder, arguments)


@pytest.fixture
def engine(cluster: RealCluster) -> Iterator[OnRealCluster]:
    with OnRealCluster(cluster) as made:
        yield made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the program whose objects meet no others."""
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text(file.read_text().replace("config:\n", "config:\n  kilo:namespace: kilo-official\n", 1))
    return tmp_path


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_stage_comes_changes_and_goes(engine: OnRealCluster, program: Path, cluster: RealCluster) -> None:
    ok(engine.run(program, "preview"))
    ok(engine.run(program, "up", "--yes", "--skip-preview"))
    ok(engine.run(program, "up", "--yes", "--skip-preview", "--expect-no-changes"))
    ok(engine.run(program, "refresh", "--preview-only", "--expect-no-changes"))

    file = program / "Pulumi.dev.yaml"
    text = file.read_text()
    changed = text.replace("ghcr.io/kilo-platform/kilo:0.1.0", "ghcr.io/kilo-platform/kilo:0.1.1")
    assert changed != text
    file.write_text(changed)
    ok(engine.run(program, "up", "--yes", "--skip-preview"))
    path = "/apis/apps/v1/namespaces/kilo-official/deployments/ingest"
    (container,) = cluster.api.get(path).json()["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "ghcr.io/kilo-platform/kilo:0.1.1"

    ok(engine.run(program, "destroy", "--yes", "--skip-preview"))
    left = [each["metadata"]["name"] for each in cluster.items("/api/v1/namespaces")]
    assert "kilo-official" not in left


def tell(program: Path, word: str) -> None:
    """A Secret with a value that the program knows, since those of the stage are made as it is deployed."""
    text = (ROOT / "infra" / "__main__.py").read_text()
    assert text.count(LAST_STEP) == 1
    changed = text.replace(LAST_STEP, LAST_STEP + SECRET.format(word=word))
    (program / "infra" / "__main__.py").write_text(changed)


def previewed(engine: OnRealCluster, program: Path, *options: str) -> set[tuple[str, str, str]]:
    """What a preview would change, as the workflows ask for it."""
    events = ok(engine.run(program, "preview", "--json", *options))
    return {(each.operation, each.type, each.name) for each in parse_events(events).changes}


def clusterrole(cluster: RealCluster, name: str, group: str, resource: str) -> str:
    rule = {"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch"]}
    role = {"metadata": {"name": name}, "rules": [rule]}
    cluster.api.post(f"/apis/{RBAC}/v1/clusterroles", json=role).raise_for_status()
    return name


def test_who_only_views_previews_the_same_and_who_sees_secrets_refreshes(
    engine: OnRealCluster, program: Path, cluster: RealCluster
) -> None:
    """The roles of `preview-STAGE` and `drift-STAGE`, as docs/prerequisites.md lets them into a cluster."""
    secrets = clusterrole(cluster, "view-secrets", "", "secrets")
    monitors = clusterrole(cluster, "view-monitors", "monitoring.coreos.com", "*")
    preview = cluster.account("preview", "view")
    drift = cluster.account("drift", "view", secrets, monitors)
    assert [cluster.lets(name, "get", "secrets") for name in ("preview", "drift")] == [False, True]
    for name in ("preview", "drift"):
        assert not cluster.lets(name, "get", "pods", "exec")
        assert not cluster.lets(name, "patch", "configmaps")
    tell(program, "before")
    ok(engine.run(program, "up", "--yes", "--skip-preview"))

    file = program / "Pulumi.dev.yaml"
    text = file.read_text().replace("ghcr.io/kilo-platform/kilo:0.1.0", "ghcr.io/kilo-platform/kilo:0.1.1")
    text = text.replace("kilo:tenants:\n", "kilo:tenants:\n    - { id: acorn, tier: silver }\n")
    file.write_text(text.replace("kilo:monitoring:\n", "kilo:monitoring:\n    labels: { release: a }\n"))
    tell(program, "after")
    wanted = previewed(engine, program)
    kinds = {kind.rpartition(":")[2] for _, kind, _ in wanted}
    assert {"Secret", "ConfigMap", "Deployment", "Job", "PrometheusRule"} <= kinds

    engine.kubeconfig = preview
    assert previewed(engine, program) == wanted
    refused = engine.run(program, "preview", "--refresh")
    assert refused.returncode != 0
    assert 'cannot get resource "secrets"' in refused.stdout + refused.stderr

    engine.kubeconfig = drift
    assert previewed(engine, program, "--refresh") == wanted
    engine.kubeconfig = cluster.kubeconfig
    ok(engine.run(program, "destroy", "--yes", "--skip-preview"))
