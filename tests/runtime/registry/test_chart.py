"""The paved road's chart as an artifact: helm takes it from either registry, a version stays what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.configuration import read_stage_file
from kilo.contract import SERVICE_CHART, StackOutputs
from kilo.errors import BadInput
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer
from kilo.scaffold.chart import pack, publish
from kilo.scaffold.cli import app
from sandbox.toolchain import path
from tests.events import make_outputs
from tests.runtime.registry.images import Shelf

Shelves = Callable[[str], Shelf]
ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "service"


def side(shelf: Shelf) -> str:
    return shelf.name.removesuffix(f"/{SERVICE_CHART}")


def shelves(shelf: Shelves) -> tuple[Shelf, Shelf]:
    one, other = shelf("with"), shelf("without")
    return tuple(Shelf(each.url, f"{each.repository}/{SERVICE_CHART}") for each in (one, other))  # pyright: ignore[reportReturnType]


def outputs_of(primary: Shelf, secondary: Shelf, *repositories: str) -> StackOutputs:
    outputs = make_outputs()
    found = outputs.registries
    one = found.primary.model_copy(update={"url": side(primary)})
    other = found.secondary.model_copy(update={"url": side(secondary)})
    update = {"primary": one, "secondary": other, "repositories": ("shop/orders", *repositories)}
    return outputs.model_copy(update={"registries": found.model_copy(update=update)})


def command(outputs: StackOutputs, place: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    (place / "outputs.json").write_text(outputs.model_dump_json())
    monkeypatch.setenv("KILO_OUTPUTS", str(place / "outputs.json"))
    return CliRunner().invoke(app, ["chart", *arguments])


def helm(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path("helm"), *arguments],
        env={"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def pulled(shelf: Shelf, version: str, into: Path) -> Path:
    into.mkdir()
    done = helm(
        *("pull", f"oci://{shelf.name}", "--version", version, "--plain-http", "--untar"),
        *("--destination", str(into)),
        home=into,
    )
    assert done.returncode == 0, done.stderr
    return into / "service"


def files(directory: Path) -> dict[str, bytes]:
    return {
        each.relative_to(directory).as_posix(): each.read_bytes()
        for each in directory.rglob("*")
        if each.is_file()
    }


def test_helm_takes_it_from_the_primary_and_from_the_mirror(
    shelf: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, secondary = shelves(shelf)
    outputs = outputs_of(primary, secondary, SERVICE_CHART)
    done = command(outputs, tmp_path, monkeypatch, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["pushed"]
    assert said["chart"] == f"{primary.name}:{said['version']}@{said['digest']}"
    with Synchronizer() as synchronizer:
        synchronizer.sync(Reference.parse(primary.name), Reference.parse(secondary.name))
    for number, each in enumerate((primary, secondary)):
        chart = pulled(each, said["version"], tmp_path / str(number))
        assert files(chart) == files(CHART)
        lint = helm("lint", "--strict", str(chart), "--set", "image.repository=r/a", home=tmp_path)
        assert "Chart.yaml" not in lint.stdout.replace("Chart.yaml: icon is recommended", ""), lint.stdout
    again = command(outputs, tmp_path, monkeypatch)
    assert again.stdout == f"{said['chart']} was there already\n"


def test_a_version_stays_what_it_is(shelf: Shelves, tmp_path: Path) -> None:
    primary, secondary = shelves(shelf)
    outputs = outputs_of(primary, secondary, SERVICE_CHART).registries
    first = publish(pack(CHART), outputs)
    other = tmp_path / "service"
    shutil.copytree(CHART, other)
    assert publish(pack(other), outputs).chart == first.chart, "times and owners of files mean nothing"
    (other / "templates" / "NOTES.txt").write_text("changed")
    with pytest.raises(BadInput, match="is there with other content; raise the version"):
        publish(pack(other), outputs)
    assert pulled(primary, pack(CHART).version, tmp_path / "pulled").is_dir()


def test_a_stage_without_its_repository_is_told_so(shelf: Shelves) -> None:
    with pytest.raises(BadInput, match=r"registries.repositories: no 'charts/service'"):
        publish(pack(CHART), outputs_of(*shelves(shelf)).registries)


def test_every_stage_has_its_repository() -> None:
    for stage in ("dev", "stage", "prod"):
        registry = read_stage_file(ROOT / f"Pulumi.{stage}.yaml").registry
        assert registry.every_repository == (*registry.repositories, SERVICE_CHART)
        listed = registry.model_copy(update={"repositories": (SERVICE_CHART, "a/b")})
        assert listed.every_repository == (SERVICE_CHART, "a/b"), "once, where the stage lists it itself"


def test_nothing_is_asked_by_a_dry_run() -> None:
    done = CliRunner().invoke(app, ["chart", str(CHART), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("service 0.")
    assert pack(CHART).manifest().digest in done.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: ../../etc\nversion: 1.0.0\n", "name: not a DNS label"),
        ("name: a/b\nversion: 1.0.0\n", "name: not a DNS label"),
        ("name: ünïcode\nversion: 1.0.0\n", "name: not a DNS label"),
        ("name: service\nversion: 1.0.0+build\n", "version: not a semantic version"),
        ("name: service\nversion: 1.0\n", "version: not a semantic version"),
        ("name: service\n", "version: not a semantic version"),
        ("- a list\n", "name: not a DNS label"),
        ("name: [\n", "not YAML"),
    ],
)
def test_what_is_no_chart_is_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text(text)
    with pytest.raises(BadInput, match=reason):
        pack(tmp_path)


def test_a_folder_without_chart_and_a_link_out_of_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="name the folder of a chart"):
        pack(tmp_path)
    shutil.copytree(CHART, tmp_path / "service")
    (tmp_path / "service" / "templates" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="a link"):
        pack(tmp_path / "service")
