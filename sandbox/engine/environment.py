"""The environment in which plain ``pulumi`` works on the sandbox.

Everything that the engine needs is found by environment variables and in its home, so that nothing in
the program knows of it: a language host, a provider for each cloud, a state backend, a passphrase and
the endpoints of the servers. Each provider is a file of its own in ``.kilo/bin``: take one away and the
engine uses the official one.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.cluster.client import token_file

PROVIDERS = ("aws", "gcp", "kubernetes", "random")
_LANGUAGE_HOST = "pulumi-language-python"


@dataclass(frozen=True)
class Endpoints:
    """Where the daemon's servers answer, as ``http://127.0.0.1:PORT`` each; what is None is not set."""

    daemon: str | None = None
    aws: str | None = None
    gcs: str | None = None
    kubeconfig: Path | None = None
    official: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Official providers that take the place of the sandbox's own, by name."""
    contexts: Sequence[str] = ()
    """What stages call the cluster's context, besides ``sandbox``."""
    aws_region: str = "us-east-1"
    extra: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Layout:
    """Where a project's sandbox keeps what."""

    project: Path

    @property
    def home(self) -> Path:
        """Everything of the sandbox's."""
        return self.project / ".kilo"

    @property
    def binaries(self) -> Path:
        """Put first on PATH."""
        return self.home / "bin"

    @property
    def state(self) -> Path:
        """The engine's state backend."""
        return self.home / "state"

    @property
    def passphrase(self) -> Path:
        """The file with the passphrase that encrypts secrets in the state."""
        return self.home / "passphrase"

    @property
    def records(self) -> Path:
        """What has no server behind it and is recorded instead."""
        return self.home / "records"


def prepare(project: Path, pulumi: Path, endpoints: Endpoints) -> dict[str, str]:
    """Write the shims and the passphrase and answer with the variables to set.

    Idempotent. The variables are to be laid over the caller's own environment.

    Args:
        project: the folder of Pulumi.yaml.
        pulumi: the engine's executable.
        endpoints: of the running daemon.

    Raises:
        Unreachable: ``pulumi`` is no executable.
    """
    if not os.access(pulumi, os.X_OK):
        msg = f"{pulumi}: the Pulumi engine is not there; `kilo doctor` says how to get it"
        raise Unreachable(msg)
    layout = Layout(project.resolve())
    for folder in (layout.binaries, layout.state, layout.records):
        folder.mkdir(parents=True, exist_ok=True)
    _write_shims(layout, pulumi)
    _install_plugins(layout, endpoints.official)
    _keep_no_log(layout.home / "pulumi" / "logs")
    _write_passphrase(layout.passphrase)
    path = [
        str(layout.binaries),
        *_without(os.environ.get("PATH", "").split(os.pathsep), str(layout.binaries)),
    ]
    variables = {
        "PATH": os.pathsep.join(path),
        # The user's own plugins, credentials and stacks lie under ~/.pulumi and stay out of this.
        "PULUMI_HOME": str(layout.home / "pulumi"),
        "PULUMI_BACKEND_URL": f"file://{layout.state}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(layout.passphrase),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # It would warn of each plugin that it finds by PATH; those installed in its home are taken without.
        "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
        "KILO_RECORDS": str(layout.records),
        "AWS_REGION": endpoints.aws_region,
        "AWS_DEFAULT_REGION": endpoints.aws_region,
        # The servers of the sandbox take any credentials; a user's own must not reach them.
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if endpoints.daemon:
        variables["KILO_SANDBOX"] = endpoints.daemon
        variables["KUBECONFIG"] = str(_write_kubeconfig(layout, endpoints.daemon, endpoints.contexts))
    if endpoints.aws:
        variables["AWS_ENDPOINT_URL"] = endpoints.aws
    if endpoints.gcs:
        variables["STORAGE_EMULATOR_HOST"] = endpoints.gcs
    if endpoints.kubeconfig:
        variables["KUBECONFIG"] = str(endpoints.kubeconfig)
    return variables | endpoints.extra


UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_ACCESS_TOKEN")
"""Variables of a user's shell that would win over those of :func:`prepare`; to be taken away."""


def overlay(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment with ``variables`` over it and without those of :data:`UNSET`."""
    return {k: v for k, v in os.environ.items() if k not in UNSET} | variables


def shell(variables: dict[str, str]) -> str:
    """The variables as commands for ``eval`` in a POSIX shell."""
    lines = [f"unset {' '.join(UNSET)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines)


def _write_shims(layout: Layout, pulumi: Path) -> None:
    # -P keeps the caller's folder, a program's infra/ for one, from shadowing the shim's modules.
    python = f"exec {shlex.quote(sys.executable)} -P -m"
    for name in PROVIDERS:
        _script(layout.binaries / f"pulumi-resource-{name}", f'{python} sandbox.providers.{name} "$@"')
    official = shutil.which(_LANGUAGE_HOST, path=os.pathsep.join(_outside(layout)))
    beside = pulumi.resolve().parent / _LANGUAGE_HOST
    if official or beside.exists():
        (layout.binaries / _LANGUAGE_HOST).unlink(missing_ok=True)
    else:
        _script(layout.binaries / _LANGUAGE_HOST, f'{python} sandbox.engine.language_host "$@"')
    project, real = shlex.quote(str(layout.project)), shlex.quote(str(pulumi.resolve()))
    _script(layout.binaries / "pulumi", f'{python} sandbox.engine.command {project} {real} "$@"')


def _write_kubeconfig(layout: Layout, server: str, contexts: Sequence[str]) -> Path:
    """The cluster by each name that a stage gives it. The token stays where it is."""
    named = {"cluster": "sandbox", "user": "sandbox"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": "sandbox", "user": {"tokenFile": str(token_file(server))}}],
        "contexts": [{"name": name, "context": named} for name in dict.fromkeys(["sandbox", *contexts])],
        "current-context": "sandbox",
    }
    path = layout.home / "kubeconfig"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(config, indent=1), encoding="utf-8")
    beside.replace(path)
    return path


def _install_plugins(layout: Layout, official_providers: Mapping[str, Path]) -> None:
    """Have the providers where the engine looks, under the versions that it asks for: the SDKs' own."""
    host = layout.binaries / _LANGUAGE_HOST
    # Not there where an official one is; one beside the engine is found without this.
    official = None if host.exists() else shutil.which(_LANGUAGE_HOST)
    plugins = {
        f"resource-{name}": official_providers.get(name, layout.binaries / f"pulumi-resource-{name}")
        for name in PROVIDERS
    }
    if host.exists() or official:
        plugins["language-python"] = Path(official) if official else host
    folder = layout.home / "pulumi" / "plugins"
    kept: set[str] = set()
    for name, program in plugins.items():
        package = name.partition("-")[2] if name.startswith("resource-") else ""
        found = version(f"pulumi-{package}" if package else "pulumi")
        place = folder / f"{name}-v{found}" / program.name
        kept.add(place.parent.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not (place.is_symlink() and place.readlink() == program):
            beside = place.with_name(f".{place.name}.{os.getpid()}")
            beside.symlink_to(program)
            beside.replace(place)
    for other in folder.iterdir():
        # Of an SDK before an upgrade.
        if other.name not in kept:
            shutil.rmtree(other, ignore_errors=True)


def _keep_no_log(folder: Path) -> None:
    """Keep the engine from logging all that it is told, at a third of its processor time; it has no option
    for that and goes on without where it can't make the folder."""
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()


def _outside(layout: Layout) -> list[str]:
    return _without(os.environ.get("PATH", "").split(os.pathsep), str(layout.binaries))


def _without(folders: list[str], one: str) -> list[str]:
    return [folder for folder in folders if folder and folder != one]


def _script(path: Path, body: str) -> None:
    text = f"#!/bin/sh\n{body}\n"
    if path.is_file() and not path.is_symlink() and path.read_text() == text:
        return
    # Written beside and renamed, so that a shim that another process starts is never half a file.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.chmod(beside.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    beside.replace(path)


def _write_passphrase(path: Path) -> None:
    if path.exists():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A passphrase that another process wrote meanwhile has encrypted something already.
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
