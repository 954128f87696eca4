"""A throw-away place where a stage's program is carried out and previewed without touching any stage.

The engine, the SDKs and the sandbox's providers are the real ones, on AWS and Google Cloud servers that
begin empty, and on a cluster that stores and checks every object and runs none. The state that some
commit's program would have is made by carrying that program out here; what another commit's preview says
on it is what deploying the difference would do. It needs no credentials and leaves nothing behind.

What only a cloud knows is not here: quotas, the permissions of the principal that deploys, drift.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from kilo.errors import BadInput, CheckFailed
from kilo.testing.servers.ports import free_port
from sandbox import toolchain
from sandbox.cluster.addresses import Addresses
from sandbox.cluster.client import forget_token, new_token
from sandbox.cluster.controllers.controller import Manager
from sandbox.cluster.controllers.deletion import deletion_controllers
from sandbox.cluster.http import KubernetesApi
from sandbox.cluster.node.logs import LogReader
from sandbox.cluster.resources import Resources
from sandbox.cluster.schemas import Schemas
from sandbox.cluster.store import Store
from sandbox.engine import environment
from sandbox.engine.command import policies, without_secrets_provider
from sandbox.engine.environment import Endpoints
from sandbox.providers.kubernetes.readiness import WITHOUT_NODE
from sandbox.secrets import NOWHERE, put_stage_secrets
from sandbox.servers.fake_gcs import FakeGcsServer
from sandbox.servers.moto import MotoServer
from sandbox.stages import contexts_of, identity_of, region_of

# A value that only the stage's own key opens. Nothing here may need it, so that it shows as what it is.
_SECURE = re.compile(r":[ ]*\n[ ]+secure:.*$", re.MULTILINE)
_HIDDEN = ": hidden"
_SALT = re.compile(r"^encryptionsalt: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Previewed:
    """What a preview said.

    Attributes:
        events: the engine's events, one JSON document a line.
        refused: whether the program, a provider or a mandatory policy refuses the deployment.
        said: the engine's messages, when it does.
    """

    events: str
    refused: bool
    said: str


class Rehearsal:
    """Servers and state in a temporary folder, for as long as the context is open.

    It is one cloud account: carry one stage out in it, since names of two could be the same.

    Args:
        database_url: what stages find as their database's URL.
    """

    def __init__(self, database_url: str = NOWHERE) -> None:
        self._database_url = database_url
        self._home = Path(tempfile.mkdtemp(prefix="kilo-rehearsal-"))
        self._aws = MotoServer(self._home / "aws")
        self._gcs = FakeGcsServer(self._home / "gcs")
        self._cluster = _PaperCluster(self._home / "cluster")

    def __enter__(self) -> Self:
        toolchain.ensure("pulumi", "crds")
        try:
            with ThreadPoolExecutor() as pool:
                parts = (self._aws, self._gcs, self._cluster)
                for started in [pool.submit(part.start) for part in parts]:
                    started.result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for part in (self._cluster, self._gcs, self._aws):
            part.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def carry_out(self, source: Path, stage: str) -> None:
        """Give the stage the state that the program in ``source`` makes.

        Raises:
            BadInput: the stage has no file there.
            CheckFailed: the program, or a provider, refuses.
        """
        done = self._engine(source, stage, ["up", "--yes", "--skip-preview", "--suppress-outputs"])
        if done.returncode:
            msg = f"the program of {source} can't be carried out for {stage}:\n{done.stdout}{done.stderr}"
            raise CheckFailed(msg)

    def preview(self, source: Path, stage: str) -> Previewed:
        """What the program in ``source`` would change of the stage's state, held to its policy pack.

        Raises:
            BadInput: the stage has no file there.
        """
        done = self._engine(source, stage, ["preview", "--json", *policies(source, stage)])
        return Previewed(done.stdout, done.returncode != 0, done.stderr)

    @contextmanager
    def unprotected(self, source: Path, stage: str) -> Generator[frozenset[str]]:
        """A stage that protects nothing while the context is open; answers with the URNs of what it did.

        Raises:
            CheckFailed: the engine does not let go, or does not take the state back.
        """
        file = self._home / f"{stage}.protected.json"
        file.write_text(self._state(source, "export", "--stack", stage), encoding="utf-8")
        resources = json.loads(file.read_bytes())["deployment"].get("resources") or []
        self._state(source, "unprotect", "--all", "--yes", "--stack", stage)
        try:
            yield frozenset(resource["urn"] for resource in resources if resource.get("protect"))
        finally:
            self._state(source, "import", "--stack", stage, "--file", str(file))

    def _state(self, source: Path, command: str, *options: str) -> str:
        group = "state" if command == "unprotect" else "stack"
        done = self._pulumi(source, [group, command, *options])
        if done.returncode:
            msg = f"`pulumi {group} {command}` failed: {done.stderr.strip()}"
            raise CheckFailed(msg)
        return done.stdout

    def resources(self, source: Path, stage: str) -> list[dict[str, Any]]:
        """Everything in the stage's state, secrets encrypted."""
        exported = self._pulumi(source, ["stack", "export", "--stack", stage]).stdout
        return json.loads(exported)["deployment"].get("resources") or []

    def outputs(self, source: Path, stage: str) -> dict[str, Any]:
        """What the stage exports, secrets left out."""
        return json.loads(self._pulumi(source, ["stack", "output", "--json", "--stack", stage]).stdout)

    def secret_values(self, source: Path, stage: str) -> str:
        """The state with its secrets in the clear, to be searched for what must show nowhere else."""
        return self._pulumi(source, ["stack", "export", "--stack", stage, "--show-secrets"]).stdout

    def take_over(self, source: Path, stage: str, state: str) -> None:
        """Give the stage a state that :meth:`secret_values` gave of another place; nothing of it is here.

        What only reads the state, as a preview does, can't tell.

        Raises:
            BadInput: the stage has no file there.
            CheckFailed: the engine refuses the state.
        """
        configuration = self._prepare(source, stage)
        content = json.loads(state)
        # Its secrets come in the clear, since the passphrase of the other place is not here.
        (salt,) = _SALT.findall(configuration.read_text(encoding="utf-8"))
        content["deployment"]["secrets_providers"] = {"type": "passphrase", "state": {"salt": salt}}
        file = self._home / f"{stage}.state.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        self._state(source, "import", "--stack", stage, "--file", str(file))

    def _engine(self, source: Path, stage: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        configuration = self._prepare(source, stage)
        return self._pulumi(
            source,
            [
                *command,
                "--stack",
                stage,
                "--non-interactive",
                "--color=never",
                "--config-file",
                str(configuration),
            ],
        )

    def _prepare(self, source: Path, stage: str) -> Path:
        """Make what the stage finds here, and answer with its configuration."""
        endpoints = Endpoints(
            daemon=self._cluster.url,
            aws=self._aws.url,
            gcs=self._gcs.url,
            aws_region=region_of(source, stage),
            contexts=contexts_of(source),
            extra=identity_of(source, stage),
        )
        self._variables = environment.prepare(self._home, toolchain.path("pulumi"), endpoints)
        self._variables[WITHOUT_NODE] = "true"
        # The engine writes the whole state after every step, in case it is killed. Nobody would go on here.
        self._variables["PULUMI_SKIP_CHECKPOINTS"] = "true"
        # Events tell of policies, which the single document does not.
        self._variables["PULUMI_ENABLE_STREAMING_JSON_PREVIEW"] = "true"
        configuration = self._configuration(source, stage)
        put_stage_secrets(source, self._aws.url, self._database_url, self._database_url)
        return configuration

    def _configuration(self, source: Path, stage: str) -> Path:
        """The stage's file under this place's own passphrase, the stack made when there is none yet."""
        file = source / f"Pulumi.{stage}.yaml"
        if not file.is_file():
            known = ", ".join(path.name.split(".")[1] for path in sorted(source.glob("Pulumi.*.yaml")))
            msg = f"{stage}: {source} has no Pulumi.{stage}.yaml; stages there: {known}"
            raise BadInput(msg)
        # `stack init` notes the passphrase's salt in a file beside the Pulumi.yaml that it finds.
        project = self._home / "project"
        own = project / file.name
        if not own.exists():
            project.mkdir(exist_ok=True)
            shutil.copy(source / "Pulumi.yaml", project)
            done = self._pulumi(project, ["stack", "init", stage, "--no-select"])
            if done.returncode:
                msg = f"the engine can't make a stack for {stage}: {done.stderr}"
                raise CheckFailed(msg)
        salt = own.read_text(encoding="utf-8")
        text = _SECURE.sub(_HIDDEN, without_secrets_provider(file.read_text(encoding="utf-8")))
        configuration = self._home / file.name
        configuration.write_text(f"{text.rstrip()}\n{salt}", encoding="utf-8")
        return configuration

    def _pulumi(self, folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        # The engine itself, not the one of `kilo env`: that one would add a configuration and policies.
        return subprocess.run(
            [str(toolchain.path("pulumi")), *arguments],
            cwd=folder,
            env=environment.overlay(self._variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


class _PaperCluster:
    """A cluster's API without a node, and of its controllers those that delete, on which the engine waits."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.url = f"http://127.0.0.1:{free_port()}"
        self._server: uvicorn.Server | None = None

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._home.mkdir(parents=True)
        self._addresses = Addresses(self._home / "addresses.json")
        store = Store(self._home / "objects")
        resources = Resources(store, Schemas(toolchain.path("crds")), self._addresses)
        api = KubernetesApi(resources, LogReader(self._home / "logs"), new_token(self.url))
        listener = socket.create_server(("127.0.0.1", int(self.url.rpartition(":")[2])))
        self._server = uvicorn.Server(
            uvicorn.Config(api.application, log_level="warning", access_log=False, lifespan="off")
        )
        serving = _serve(self._server, listener, Manager(deletion_controllers(resources), resources))
        self._thread = threading.Thread(target=asyncio.run, args=(serving,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server:
            self._server.should_exit = True
            self._thread.join()
            self._addresses.close()
            forget_token(self.url)


async def _serve(server: uvicorn.Server, listener: socket.socket, manager: Manager) -> None:
    deleting = asyncio.create_task(manager.run())
    await server.serve([listener])
    deleting.cancel()
