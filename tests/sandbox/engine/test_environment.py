"""What ``kilo env`` sets up."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from kilo.errors import Unreachable
from sandbox import toolchain
from sandbox.engine import environment
from sandbox.engine.environment import Endpoints, Layout


@pytest.fixture
def pulumi() -> Path:
    return toolchain.path("pulumi")


def test_the_passphrase_is_the_owners_alone_and_stays(tmp_path: Path, pulumi: Path) -> None:
    environment.prepare(tmp_path, pulumi, Endpoints())
    file = Layout(tmp_path).passphrase
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_text()
    assert len(first) >= 32
    environment.prepare(tmp_path, pulumi, Endpoints())
    assert file.read_text() == first


def test_no_secret_is_in_the_environment(tmp_path: Path, pulumi: Path) -> None:
    variables = environment.prepare(tmp_path, pulumi, Endpoints())
    assert Layout(tmp_path).passphrase.read_text() not in str(variables)


def test_every_provider_is_a_file_that_can_be_taken_away(tmp_path: Path, pulumi: Path) -> None:
    environment.prepare(tmp_path, pulumi, Endpoints())
    names = {file.name for file in Layout(tmp_path).binaries.iterdir()}
    assert {f"pulumi-resource-{name}" for name in environment.PROVIDERS} <= names


def test_the_engine_keeps_no_log_of_all_that_it_is_told(tmp_path: Path, pulumi: Path) -> None:
    logs = tmp_path / ".kilo" / "pulumi" / "logs"
    logs.mkdir(parents=True)
    (logs / "of-before.log").touch()
    variables = environment.prepare(tmp_path, pulumi, Endpoints())
    done = subprocess.run(
        [pulumi, "whoami"], env=environment.overlay(variables), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert logs.is_file()


def test_an_official_language_host_is_preferred(
    tmp_path: Path, pulumi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare(tmp_path, pulumi, Endpoints())
    ours = Layout(tmp_path).binaries / "pulumi-language-python"
    assert ours.exists()
    official = tmp_path / "official"
    official.mkdir()
    (official / "pulumi-language-python").write_text("#!/bin/sh\n")
    (official / "pulumi-language-python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{official}:/usr/bin:/bin")
    environment.prepare(tmp_path, pulumi, Endpoints())
    assert not ours.exists()


def test_a_shell_takes_it_whatever_the_folder_is_called(tmp_path: Path, pulumi: Path) -> None:
    project = tmp_path / 'it\'s $HOME; a "folder"'
    project.mkdir()
    variables = environment.prepare(project, pulumi, Endpoints(aws="http://127.0.0.1:1"))
    show = 'printf "%s\\n" "$PULUMI_HOME" "$AWS_ENDPOINT_URL" "${AWS_PROFILE-unset}"'
    script = f"{environment.shell(variables)}\n{show}"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": "/usr/bin:/bin", "AWS_PROFILE": "mine"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(project / ".kilo" / "pulumi"), "http://127.0.0.1:1", "unset"]
    version = subprocess.run(
        ["/bin/sh", "-c", f"{environment.shell(variables)}\npulumi version"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout.startswith("v3.")


def test_without_the_engine_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the Pulumi engine is not there"):
        environment.prepare(tmp_path, tmp_path / "nothing", Endpoints())
