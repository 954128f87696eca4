"""The program goes through the official Kubernetes provider onto a real API server, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sandbox import toolchain
from sandbox.rehearsal import Rehearsal
from tests.kubernetes.cluster import RealCluster

ROOT = Path(__file__).parents[2]
STAGE = "dev"

pytestmark = pytest.mark.timeout(1200)


class OnRealCluster(Rehearsal):
    """A rehearsal whose kubernetes provider is the official one, with a real cluster behind it."""

    def __init__(self, cluster: RealCluster) -> None:
        super().__init__()
        self._kubeconfig = cluster.kubeconfig

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
            "KUBECONFIG": str(self._kubeconfig),
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
