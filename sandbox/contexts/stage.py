"""Brings the dev stage up on a cluster of the user's, and takes it down."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from sandbox import daemon, stage, toolchain
from sandbox.contexts import image
from sandbox.contexts.forwarding import address_file
from sandbox.contexts.home import STAGE, Chosen, ContextHome
from sandbox.contexts.kubectl import Kubectl
from sandbox.contexts.objects import GATEWAY_PORT, OWNER_LABEL, RELAY, sandbox_objects
from sandbox.toolchain.progress import Progress

_SERVICE = re.compile(r"(?<![a-z0-9.-])[a-z0-9-]+\.[a-z0-9-]+\.svc\.cluster\.local\b")


@dataclass(frozen=True)
class ContextStage(stage.Stage):
    """The dev stage on a context's cluster, beside a running sandbox."""

    home: ContextHome

    def reached_here(self, text: str) -> str:
        """``text`` with the address to which Services are forwarded in place of their names."""
        return _SERVICE.sub(self.home.loopback, text)

    def keep_access(self, outputs: StackOutputs) -> None:
        """Nothing: the bus of a cluster is not reached from here."""

    @contextmanager
    def gateway_here(self) -> Generator[None]:
        """Reach the gateway from this machine as long as the context is open."""
        log = self.project / ".kilo" / "logs" / "port-forward.log"
        kubectl = Kubectl(self.home.context)
        with kubectl.forwarded(self.home.namespace, RELAY, self.home.loopback, GATEWAY_PORT, log):
            yield


def open_context(home: ContextHome, address: str, load: str) -> ContextStage:
    """The stage of a context with its sandbox running, its image loaded and its cluster prepared.

    Args:
        address: of this machine, as the cluster's pods reach it; the one of the last time when empty.
        load: a command that gives the cluster an image, to which the archive's path is added; without one the
            cluster has the image of the last time, or the released one.

    Raises:
        KiloError: what is missing, wrong or doesn't answer.
    """
    kubectl = Kubectl(home.context)
    _refuse_others(kubectl, home)
    chosen = _chosen(home, address)
    home.write(chosen)
    _listen(home.project, chosen.address)
    endpoints = daemon.ensure_running(home.project)
    if load:
        archive = home.project / ".kilo" / "image.tar"
        with Progress() as progress, progress.step("image", "the platform's own, for this cluster") as step:
            named = image.make(home.project, endpoints, home.image, archive, step)
            step.update("loading")
            _load(load, archive)
        archive.unlink()
        chosen = Chosen(chosen.address, named)
        home.write(chosen)
    _prepare_cluster(kubectl, home, endpoints, chosen)
    opened = ContextStage(home.project, endpoints, engine_variables(home, endpoints), home)
    opened.ensure_stacks()
    return opened


def engine_variables(home: ContextHome, endpoints: daemon.Endpoints) -> dict[str, str]:
    """The engine's variables, with the official provider for the context's cluster."""
    provider, files = (toolchain.path(name) for name in ("kubernetes-provider", "kubernetes-provider-files"))
    variables = stage.prepare(home.project, endpoints, official={"kubernetes": provider})
    return {**variables, "KUBERNETES_PROVIDER_FILES": str(files)}


def remove(home: ContextHome) -> None:
    """Let the engine remove the stage from the cluster, end the sandbox, and remove what it kept.

    Raises:
        BadInput: no stage was brought up there.
        CheckFailed: the engine did not succeed, or something is protected: nothing here is removed.
    """
    home.chosen()
    kept = open_context(home, "", "").destroy()
    if kept:
        msg = f"these are protected, so that {home.project} stays:\n  " + "\n  ".join(kept)
        raise CheckFailed(msg)
    stage.close(home.project)
    shutil.rmtree(home.project)


def _chosen(home: ContextHome, address: str) -> Chosen:
    try:
        before = home.chosen()
    except BadInput:
        before = Chosen()
    if not (address or before.address):
        msg = (
            "--address: name the address of this machine that the cluster's pods reach; kind's and k3d's is "
            "the gateway of their container network: docker network inspect kind"
        )
        raise BadInput(msg)
    return Chosen(address or before.address, before.image)


def _listen(project: Path, address: str) -> None:
    """Have the sandbox listen there, which one that runs on another address can't begin to."""
    file = address_file(project / ".kilo")
    if not file.exists() or file.read_text(encoding="ascii") != address:
        daemon.stop(project)
        file.write_text(address, encoding="ascii")


def _load(command: str, archive: Path) -> None:
    done = subprocess.run([*shlex.split(command), str(archive)], check=False)
    if done.returncode:
        msg = f"--load: `{command}` ended with {done.returncode}; the lines above say why"
        raise CheckFailed(msg)


def _refuse_others(kubectl: Kubectl, home: ContextHome) -> None:
    """The program says the same, but what is done here comes before it."""
    found = kubectl.run("get", "namespace", home.namespace, "--ignore-not-found", "--output=json")
    if found and json.loads(found)["metadata"].get("labels", {}).get(OWNER_LABEL) != STAGE:
        msg = (
            f"--context {home.context}: its namespace '{home.namespace}' was not made by a {STAGE} stage; "
            f"choose another kilo:namespace, or label it {OWNER_LABEL}={STAGE} if all in it may go"
        )
        raise BadInput(msg)


def _prepare_cluster(
    kubectl: Kubectl, home: ContextHome, endpoints: daemon.Endpoints, chosen: Chosen
) -> None:
    """Give the cluster what the program does not: kinds that it lacks, and a way to the sandbox."""
    there = kubectl.run("get", "customresourcedefinitions", "--output=name").split()
    for file in sorted(toolchain.path("crds").glob("*.yaml")):
        group, _, plural = file.stem.partition("_")
        if not any(name.endswith(f"/{plural}.{group}") for name in there):
            kubectl.run("apply", "--server-side", f"--filename={file}")
    urls = (endpoints.aws, endpoints.gcs, endpoints.primary_registry, endpoints.secondary_registry)
    ports = [urlsplit(url).port or 0 for url in urls]
    kubectl.apply(*sandbox_objects(home.namespace, chosen.image or home.image, chosen.address, ports))
