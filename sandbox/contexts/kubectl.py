"""kubectl, which knows every way to sign in to a cluster: one context of the user's kubeconfig."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kilo.errors import BadInput, Unreachable
from kilo.testing.servers.process import ServerProcess

_SECONDS = 120
_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Kubectl:
    """The program on the cluster of a context.

    Raises:
        BadInput: the kubeconfig has no such context; says which there are.
        Unreachable: the machine has no kubectl.
    """

    context: str

    def __post_init__(self) -> None:
        if shutil.which("kubectl") is None:
            msg = "kubectl is not on PATH, and --context takes it: https://kubernetes.io/docs/tasks/tools/"
            raise Unreachable(msg)
        known = self._run(["kubectl", "config", "get-contexts", "--output=name"]).split()
        if self.context not in known:
            msg = f"--context {self.context}: the kubeconfig has none of that name; it has: "
            raise BadInput(msg + (", ".join(sorted(known)) or "none"))

    def json(self, *words: str) -> Any:
        """The answer of a command that prints objects."""
        return json.loads(self.run(*words, "--output=json"))

    def run(self, *words: str, given: str | None = None) -> str:
        """What a command prints; ``given`` is its standard input.

        Raises:
            Unreachable: it failed, or the cluster does not answer.
        """
        return self._run([*self.words(), f"--request-timeout={_ANSWER_SECONDS}s", *words], given)

    def words(self) -> list[str]:
        """How a command line on the cluster begins."""
        return ["kubectl", f"--context={self.context}"]

    def apply(self, *objects: Any) -> None:
        """Create or change objects, as kubectl does on the server's side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.run("apply", "--server-side", "--force-conflicts", "--filename=-", given=text)

    @contextmanager
    def forwarded(self, namespace: str, relay: str, address: str, port: int, log: Path) -> Generator[None]:
        """Reach what a Deployment relays to, over HTTP, on an address here as long as the context is open.

        Raises:
            Unreachable: nothing answers.
        """
        there = [*self.words(), f"--namespace={namespace}"]
        self._run([*there, "rollout", "status", f"deployment/{relay}"])
        argv = [*there, "port-forward", f"--address={address}"]
        process = ServerProcess(
            name=f"port-forward to {relay}",
            argv=[*argv, f"deployment/{relay}", f"{port}:{port}"],
            env={},
            directory=log.parent,
            log_path=log,
            ready=lambda: _answers(address, port),
            start_seconds=_SECONDS,
        )
        process.start()
        try:
            yield
        finally:
            process.kill()

    def _run(self, argv: Sequence[str], given: str | None = None) -> str:
        try:
            done = subprocess.run(
                argv,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
                env=dict(os.environ),
            )
        except subprocess.TimeoutExpired as error:
            msg = f"context {self.context}: kubectl did not end within {_SECONDS} s: {' '.join(argv[2:])}"
            raise Unreachable(msg) from error
        if done.returncode:
            msg = f"context {self.context}: kubectl failed: {' '.join(done.stderr.split())}"
            raise Unreachable(msg)
        return done.stdout


def _answers(address: str, port: int) -> bool:
    """Whether there is an answer, whatever it says: what forwards takes connections before it knows."""
    httpx.get(f"http://{address}:{port}/", timeout=5, trust_env=False)
    return True
