"""Which programs there are, where each comes from, and the two functions that hand them out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kilo.errors import BadInput
from kilo.testing.servers.wheels import nats_server, postgres_programs
from sandbox.toolchain import debezium, debian, kafka, valkey, wheels
from sandbox.toolchain.cache import Recipe, install, require_disk_space
from sandbox.toolchain.golang import go_module_files, go_program, module_version
from sandbox.toolchain.progress import Progress

_PULUMI = "github.com/pulumi/pulumi/pkg/v3"
_PULUMI_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_CRD_KINDS = ("alertmanagerconfigs", "podmonitors", "prometheusrules", "servicemonitors")
_PROVIDER = "kubernetes-provider"
_OPERATOR = "github.com/prometheus-operator/prometheus-operator"


@dataclass(frozen=True)
class _Made:
    """A file, or with an empty name the directory itself, of what a recipe makes."""

    recipe: Recipe
    file: str = ""

    @property
    def path(self) -> Path:
        return self.recipe.directory / self.file


def ensure(*names: str) -> dict[str, Path]:
    """Make what is missing of the named programs and return where each is.

    Safe to call from several processes at once. Directories stand for ``debezium`` (its home), ``kafka``
    (its jars), ``crds`` (CustomResourceDefinitions of the Prometheus operator as YAML), ``postgres`` (its
    programs) and ``valkey`` (what its packages unpack to).

    Raises:
        BadInput: a name is unknown.
        Unreachable: something can't be downloaded or built, or a prerequisite or disk space is missing.
    """
    found = _sources(names)
    if recipes := _missing(found):
        _install_all(recipes)
    return {name: source.path if isinstance(source, _Made) else source for name, source in found.items()}


def missing(*names: str) -> list[Recipe]:
    """What :func:`ensure` would make of the named programs.

    Raises:
        BadInput: a name is unknown.
        Unreachable: a program is to be had neither here nor elsewhere.
    """
    return _missing(_sources(names))


def _sources(names: Sequence[str]) -> dict[str, Path | _Made]:
    every = {**_SOURCES, **_ON_DEMAND}
    if unknown := sorted(set(names) - set(every)):
        msg = f"unknown tool {', '.join(unknown)}; there are {', '.join(every)}"
        raise BadInput(msg)
    return {name: every[name]() for name in names}


def _missing(sources: Mapping[str, Path | _Made]) -> list[Recipe]:
    made = [source.recipe for source in sources.values() if isinstance(source, _Made)]
    return list({recipe.name: recipe for recipe in made if not recipe.directory.is_dir()}.values())


def path(name: str) -> Path:
    """Where one program is, made if it is missing; raises as :func:`ensure` does."""
    return ensure(name)[name]


def _install_all(recipes: list[Recipe]) -> None:
    # Before the first minute is spent: what is missing would stop it at the end.
    for recipe in recipes:
        recipe.check()
    require_disk_space(recipes)

    with Progress() as progress, ThreadPoolExecutor(max_workers=len(recipes)) as pool:

        def make(recipe: Recipe) -> None:
            with progress.step(recipe.name, recipe.summary) as step:
                install(recipe, step)

        # Downloads wait for the network while builds wait for the processor.
        for future in [pool.submit(make, recipe) for recipe in recipes]:
            future.result()


def _pulumi() -> Path | _Made:
    version = module_version("pulumi", _PULUMI)
    # In a shell set up by `kilo env` the first pulumi on PATH is the sandbox's own wrapper.
    outside = [folder for folder in os.get_exec_path() if not folder.endswith("/.kilo/bin")]
    official = shutil.which("pulumi", path=os.pathsep.join(outside))
    if official and _pulumi_version(official) >= _parse_version(version):
        return Path(official).resolve()
    recipe = go_program(
        "pulumi",
        {"pulumi": f"{_PULUMI}/cmd/pulumi"},
        summary=f"the Pulumi CLI {version} from its Go module, 500 MB of sources and some minutes",
        disk_bytes=4_000_000_000,
        linker_flags=f"-X {_PULUMI_VERSION_VARIABLE}={version}",
    )
    return _Made(recipe, "pulumi")


def _pulumi_version(executable: str) -> tuple[int, ...]:
    answer = subprocess.run([executable, "version"], capture_output=True, text=True, check=False)
    return _parse_version(answer.stdout.strip())


def _parse_version(text: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0,)


def _prometheus(file: str) -> _Made:
    if debian.available():
        recipe = debian.package(
            "prometheus", summary="Prometheus from its Debian package, 20 MB", disk_bytes=300_000_000
        )
        return _Made(recipe, f"usr/bin/{file}")
    packages = {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")}
    recipe = go_program(
        "prometheus",
        packages,
        summary="Prometheus (without its web pages) from its Go module, some minutes",
        disk_bytes=5_000_000_000,
    )
    return _Made(recipe, file)


def _alertmanager() -> _Made:
    # Debian's binary reads its default template from /usr/share, where an unpacked package has none.
    packages = {name: f"github.com/prometheus/alertmanager/cmd/{name}" for name in ("alertmanager", "amtool")}
    recipe = go_program(
        "alertmanager",
        packages,
        summary="Alertmanager from its Go module, some minutes",
        disk_bytes=1_500_000_000,
    )
    return _Made(recipe, "alertmanager")


def _ratelimit() -> _Made:
    recipe = go_program(
        "ratelimit",
        {"ratelimit": "github.com/envoyproxy/ratelimit/src/service_cmd"},
        summary="Envoy's rate limit service from its Go module, some minutes",
        disk_bytes=1_500_000_000,
    )
    return _Made(recipe, "ratelimit")


def _docker_registry() -> _Made:
    if debian.available():
        recipe = debian.package(
            "docker-registry", summary="an OCI registry from its Debian package, 5 MB", disk_bytes=100_000_000
        )
        return _Made(recipe, "usr/bin/docker-registry")
    recipe = go_program(
        "registry",
        {"docker-registry": "github.com/distribution/distribution/v3/cmd/registry"},
        summary="an OCI registry from its Go module, a minute",
        disk_bytes=1_500_000_000,
    )
    return _Made(recipe, "docker-registry")


def _crane() -> _Made:
    recipe = go_program(
        "crane",
        {"crane": "github.com/google/go-containerregistry/cmd/crane"},
        summary="crane from its Go module",
        disk_bytes=500_000_000,
    )
    return _Made(recipe, "crane")


def _actionlint() -> _Made:
    recipe = go_program(
        "actionlint",
        {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"},
        summary="actionlint from its Go module",
        disk_bytes=300_000_000,
    )
    return _Made(recipe, "actionlint")


def _otelcol() -> _Made:
    recipe = go_program(
        "collector",
        {"otelcol": "kilo/toolchain/collector"},
        summary="the OpenTelemetry collector from its Go modules, ten minutes and more",
        disk_bytes=4_000_000_000,
    )
    return _Made(recipe, "otelcol")


def _helm() -> _Made:
    recipe = go_program(
        "helm",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        summary="Helm from its Go module",
        disk_bytes=2_500_000_000,
    )
    return _Made(recipe, "helm")


def _crds() -> _Made:
    recipe = go_module_files(
        "crds",
        _OPERATOR,
        [f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml" for kind in _CRD_KINDS],
        summary="CustomResourceDefinitions of the Prometheus operator, 5 MB",
        disk_bytes=100_000_000,
    )
    return _Made(recipe)


def _kubernetes_provider() -> _Made:
    recipe = go_program(
        _PROVIDER,
        {"pulumi-resource-kubernetes": "."},
        summary="the official Kubernetes provider from its Go module, some minutes",
        disk_bytes=4_000_000_000,
    )
    return _Made(recipe, "pulumi-resource-kubernetes")


def _kubernetes_provider_files() -> _Made:
    folder = "cmd/pulumi-resource-kubernetes"
    recipe = go_module_files(
        f"{_PROVIDER}-files",
        "github.com/pulumi/pulumi-kubernetes/provider/v4",
        [f"{folder}/schema.json", f"{folder}/terraform-mapping.json"],
        summary="what the official Kubernetes provider reads at its start, 10 MB",
        disk_bytes=100_000_000,
        module_name=_PROVIDER,
    )
    return _Made(recipe)


_SOURCES: dict[str, Callable[[], Path | _Made]] = {
    "pulumi": _pulumi,
    "debezium": lambda: _Made(debezium.distribution()),
    "kafka": lambda: _Made(kafka.libraries()),
    "prometheus": lambda: _prometheus("prometheus"),
    "promtool": lambda: _prometheus("promtool"),
    "alertmanager": _alertmanager,
    "docker-registry": _docker_registry,
    "crane": _crane,
    "actionlint": _actionlint,
    "crds": _crds,
    "envoy": wheels.envoy,
    "nats-server": nats_server,
    "postgres": postgres_programs,
    "java": wheels.java,
    "fake-gcs-server": wheels.fake_gcs_server,
}

_ON_DEMAND: dict[str, Callable[[], Path | _Made]] = {
    "helm": _helm,
    "kubernetes-provider": _kubernetes_provider,
    "kubernetes-provider-files": _kubernetes_provider_files,
    "otelcol": _otelcol,
    "ratelimit": _ratelimit,
    "valkey": lambda: _Made(valkey.server()),
}
"""What takes too long to make for everybody: whoever names it waits once."""

NAMES = tuple(_SOURCES)
