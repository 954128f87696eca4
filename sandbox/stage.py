"""The dev stage on this machine: brought up by the engine, destroyed by it, and what it tells services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from kilo.contract import StackOutputs
from kilo.environment import OUTPUTS_VARIABLE
from kilo.errors import CheckFailed
from kilo.host import replace_service_names
from kilo.observe.collected import FILES_VARIABLE
from sandbox import daemon, toolchain
from sandbox.backing import write_atomically
from sandbox.bus_access import access_variables, keep_access
from sandbox.engine import environment
from sandbox.stages import contexts_of, region_of, stage_config

STAGE = "dev"
_DATABASE_PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore", "psql", "initdb", "postgres")
_NOTHING_DONE = "nothing more was done"


@dataclass(frozen=True)
class Stage:
    """A project's dev stage on a running sandbox."""

    project: Path
    endpoints: daemon.Endpoints
    variables: Mapping[str, str]

    @property
    def outputs_file(self) -> Path:
        """Where the stack's outputs lie for tools on this machine."""
        return self.project / ".kilo" / "outputs.json"

    def up(self, said_to: TextIO | None = None) -> None:
        """Let the engine create and change what the program says, and keep its outputs.

        Args:
            said_to: where the engine's words go, standard output when not given.

        Raises:
            CheckFailed: the engine did not succeed; it has said why.
        """
        self._pulumi(
            ["up", "--stack", STAGE, "--yes", "--skip-preview", "--suppress-outputs"], said_to=said_to
        )
        answer = self._pulumi(["stack", "output", "--stack", STAGE, "--json"], quiet=True)
        here = json.loads(self.reached_here(answer))
        write_atomically(self.outputs_file, here)
        self.keep_access(StackOutputs.model_validate(here))
        own = {name: value for name, value in self.variables.items() if name != "PATH"}
        write_atomically(environment_file(self.project), own | access_variables(self.project))

    def reached_here(self, text: str) -> str:
        """``text`` with the addresses by which this machine reaches Services in place of their names."""
        return replace_service_names(text, self.project)

    def keep_access(self, outputs: StackOutputs) -> None:
        """Leave what commands on this machine sign in to the bus with."""
        keep_access(self.project, self.endpoints.cluster, outputs)

    def destroy(self) -> list[str]:
        """Let the engine remove all that is not protected; answers with the URNs of what is.

        Raises:
            CheckFailed: the engine did not succeed; it has said why.
        """
        self._pulumi(["destroy", "--stack", STAGE, "--yes", "--skip-preview", "--exclude-protected"])
        state = json.loads(self._pulumi(["stack", "export", "--stack", STAGE], quiet=True))
        resources = state["deployment"].get("resources") or []
        return [resource["urn"] for resource in resources if resource.get("protect")]

    def ensure_stacks(self) -> None:
        """Create the stack of each ``Pulumi.<stage>.yaml`` that has none yet."""
        listed = json.loads(self._pulumi(["stack", "ls", "--json"], quiet=True))
        existing = {stack["name"].rpartition("/")[2] for stack in listed}
        for file in sorted(self.project.glob("Pulumi.*.yaml")):
            name = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
            if name not in existing:
                # `stack init` notes the passphrase's salt in the stage's file, which is the user's own.
                text = file.read_bytes()
                self._pulumi(["stack", "init", name, "--no-select"], quiet=True)
                file.write_bytes(text)

    def _pulumi(self, arguments: Sequence[str], *, quiet: bool = False, said_to: TextIO | None = None) -> str:
        command = [str(environment.Layout(self.project).binaries / "pulumi"), *arguments]
        done = subprocess.run(
            command,
            cwd=self.project,
            env=environment.overlay(dict(self.variables)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else said_to,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f": {done.stderr.strip()}" if quiet else " (the lines above say why)"
            msg = f"`pulumi {' '.join(arguments[:2])}` failed{said}; {_NOTHING_DONE}"
            raise CheckFailed(msg)
        return done.stdout or ""


def environment_file(project: Path) -> Path:
    """The variables of a stage that is up, which `kilo` reads where the shell sets none."""
    return project / ".kilo" / "environment.json"


def close(project: Path) -> bool:
    """Stop the sandbox; says whether it was running.

    Raises:
        Unreachable: it did not stop in time.
    """
    environment_file(project).unlink(missing_ok=True)
    return daemon.stop(project)


def open_stage(project: Path) -> Stage:
    """The dev stage of a project, its sandbox started when it is not running.

    Raises:
        Unreachable: the sandbox or the engine is not to be had.
    """
    endpoints = daemon.ensure_running(project)
    variables = prepare(project, endpoints, daemon=endpoints.cluster, contexts=contexts_of(project))
    stage = Stage(project, endpoints, variables)
    stage.ensure_stacks()
    return stage


def prepare(project: Path, endpoints: daemon.Endpoints, **cluster: Any) -> dict[str, str]:
    """The variables of the engine, and of commands on this machine, for the stage on a running sandbox.

    ``cluster`` is what :class:`environment.Endpoints` has to say of the cluster.
    """
    variables = environment.prepare(
        project,
        toolchain.path("pulumi"),
        environment.Endpoints(
            aws=endpoints.aws, gcs=endpoints.gcs, aws_region=region_of(project, STAGE), **cluster
        ),
    )
    _link_database_programs(environment.Layout(project).binaries)
    variables[OUTPUTS_VARIABLE] = str(project / ".kilo" / "outputs.json")
    variables["DATABASE_URL"] = daemon.database_url(project) + _search_path(project)
    variables[FILES_VARIABLE] = str(project / ".kilo" / "pods" / "*" / "volumes" / "*" / "traces*.jsonl")
    variables["CONTAINERS_REGISTRIES_CONF"] = str(project / ".kilo" / "registries.conf")
    return variables | access_variables(project)


def _search_path(project: Path) -> str:
    """What has the superuser find the stage's tables, who is no role of the platform's."""
    schema = stage_config(project, STAGE).get("kilo:database", {}).get("schema_name")
    return f"?options=-csearch_path%3D{schema}%2Cpg_temp" if schema else ""


def _link_database_programs(binaries: Path) -> None:
    """Put PostgreSQL's programs, of the server's own version, where backups and drills find them."""
    for name in _DATABASE_PROGRAMS:
        beside = binaries / f".{name}.{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(toolchain.path("postgres") / name)
        beside.replace(binaries / name)


def remove(project: Path) -> None:
    """Remove everything that the sandbox keeps for a project; the daemon must not be running."""
    shutil.rmtree(project / ".kilo", ignore_errors=True)
