"""The dev stage on the node, brought up and asked as a user does it: by ``kilo`` with ``--context``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from sandbox import daemon
from sandbox.contexts.home import ContextHome
from tests.node.bring_up import ROOT
from tests.node.node import CONTEXT, RealNode, is_ready
from tests.node.patience import until
from tests.node.programs import node_programs

NAMESPACE = "kilo"
_LINKS = ("Pulumi.yaml", "Pulumi.dev.yaml", "infra", "charts", ".venv")
_STEADY_SECONDS = 15
"""Longer than a kubelet and the controllers take to notice each other."""


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
        """The pods of a workload, those too that are going; one that a node has ended stays on record."""
        label = f"app.kubernetes.io/name={workload}"
        found = self.node.items(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={label}")
        return [pod for pod in found if pod["status"]["phase"] not in {"Failed", "Succeeded"}]

    def settle(self) -> None:
        """Wait until the node and all pods that run have been ready for a while: what was away is over.

        When a server comes back, controllers may first count its absence for the node's, and take the pods
        out of their Services until the kubelet says otherwise.
        """
        since = time.monotonic()

        def steady() -> bool:
            nonlocal since
            pods = self.objects("api/v1/pods")
            running = [pod["status"] for pod in pods if pod["status"]["phase"] == "Running"]
            if not (self.node.is_ready() and all(map(is_ready, running))):
                since = time.monotonic()
            return time.monotonic() - since >= _STEADY_SECONDS

        until(steady, "the node or its pods are not ready")
