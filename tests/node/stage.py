"""The dev stage on the node, brought up and asked as a user does it: by ``kilo`` with ``--context``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from sandbox import daemon
from sandbox.contexts.home import ContextHome
from tests.node.bring_up import ROOT
from tests.node.node import CONTEXT, RealNode
from tests.node.programs import node_programs

NAMESPACE = "kilo"
_LINKS = ("Pulumi.yaml", "Pulumi.dev.yaml", "infra", "charts", ".venv")


class StageOnNode:
    """A checkout of its own, whose stage is brought up on ``node``."""

    def __init__(self, node: RealNode, checkout: Path) -> None:
        self.node = node
        self.home = ContextHome(checkout, CONTEXT)
        checkout.mkdir()
        for name in _LINKS:
            (checkout / name).symlink_to(ROOT / name)

    def kilo(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of ``kilo`` as somebody whose kubeconfig leads to the node."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.node.kubeconfig),
            "PATH": f"{node_programs()}{os.pathsep}{os.environ['PATH']}",
        }
        argv = [sys.executable, "-m", "kilo.cli", *words]
        done = subprocess.run(
            argv, cwd=self.home.checkout, env=environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"kilo {words}: {done.stdout}\n{done.stderr}"
        return done

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``kilo up``, with the image of this checkout the first time."""
        given = ["up", f"--context={CONTEXT}", f"--address={self.node.machine}"]
        if not self.home.project.exists():
            given.append(f"--load={shlex.join(self.node.loader())}")
        return self.kilo(*given, *words)

    def remove(self) -> None:
        """End what is left of it on this machine, whatever became of it."""
        if self.home.project.exists():
            daemon.stop(self.home.project)
            shutil.rmtree(self.home.project)

    @property
    def database_url(self) -> str:
        """The stage's database, as this machine and, but for the address, the pods reach it."""
        return daemon.database_url(self.home.project)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the stage's database."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """All of the stage's objects of a kind, such as ``apis/apps/v1/deployments``."""
        group, _, plural = kind.rpartition("/")
        return self.node.items(f"/{group}/namespaces/{NAMESPACE}/{plural}")

    def pods(self, workload: str) -> list[dict[str, Any]]:
        """The pods of a workload, those too that are going."""
        label = f"app.kubernetes.io/name={workload}"
        return self.node.items(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={label}")
