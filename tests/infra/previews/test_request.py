from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from infra.previews.request import find_service, find_target, parse_lifetime, read_seed, read_smoke
from kilo.errors import BadInput, Unreachable
from kilo.scaffold.template import Service

ROOT = Path(__file__).parents[3]
ANSWERS = "_src_path: /nowhere\n_commit: v0.1.0\nname: {name}\nkind: http\n"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "deploy").mkdir()
    (tmp_path / ".copier-answers.yml").write_text(ANSWERS.format(name="orders"))
    return find_service(tmp_path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("90m", timedelta(minutes=90)), ("8h", timedelta(hours=8)), ("30d", timedelta(days=30))],
)
def test_a_lifetime_has_one_number_and_one_unit(text: str, meant: timedelta) -> None:
    assert parse_lifetime(text) == meant


@pytest.mark.parametrize("text", ["", "8", "h", "0h", "31d", "-1h", "8h30m", "1.5h", "9999999d", "8 h"])
def test_what_is_no_lifetime_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(BadInput, match="use 90m, 8h or 3d"):
        parse_lifetime(text)


def test_a_folder_without_a_service_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no service here.*SERVICE=FOLDER"):
        find_service(tmp_path)


@pytest.mark.parametrize("name", ["gateway", "nats", "postgres", "consumer"])
def test_a_service_called_like_a_workload_of_the_preview_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / ".copier-answers.yml").write_text(ANSWERS.format(name=name))
    with pytest.raises(BadInput, match=f"name: {name}: a preview has a workload of this name"):
        find_service(tmp_path)


def test_prod_has_no_previews_and_an_unknown_stage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for stage in ("prod", "prod-2"):
        with pytest.raises(BadInput, match="prod has no previews"):
            find_target(stage, ROOT)
    with pytest.raises(BadInput, match="nowhere"):
        find_target("nowhere", ROOT)


def checkout(directory: Path) -> Path:
    (directory / "Pulumi.yaml").write_text("name: kilo\n")
    (directory / "Pulumi.dev.yaml").write_text((ROOT / "Pulumi.dev.yaml").read_text())
    return directory


def test_a_stage_that_does_not_run_is_said_with_what_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout(tmp_path))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "KILO_OUTPUTS", "POD_IP"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable, match="stage dev: does not run on this machine: kilo up"):
        find_target("dev", tmp_path)


def test_a_sandbox_that_was_killed_is_not_taken_for_one_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout(tmp_path))
    monkeypatch.setenv("KILO_OUTPUTS", str(tmp_path / "outputs.json"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path / '.kilo' / 'state'}")
    monkeypatch.setenv("KILO_SANDBOX", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="does not answer: kilo up"):
        find_target("dev", tmp_path)


def test_the_program_is_that_of_the_checkout_and_never_one_in_the_services_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "ours" / "service"
    theirs.mkdir(parents=True)
    checkout(ours)
    checkout(theirs)
    monkeypatch.chdir(ours)
    monkeypatch.setenv("KILO_OUTPUTS", "set")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    assert find_target("dev", theirs).project == ours


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests: {path: /v1}", "requests"),
        ("requests: [{path: v1}]", "requests.0.path"),
        ("requests: [{path: /v1, method: TRACE}]", "requests.0.method"),
        ("requests: [{path: /v1, status: 1000}]", "requests.0.status"),
        ("asks: []", "asks"),
        ("requests: [", "can't be read as YAML"),
        ("[" * 5_000, "can't be read as YAML"),
        # Ten of these in each other are ten thousand million values.
        ("a: &a [1, 1]\nrequests: [{path: /v1, body: *a}]", "without aliases"),
        ("requests: [{path: /v1, body: 2026-01-01}]", "a value that JSON has not, such as a date"),
        ("requests: [{path: /v1, body: .nan}]", "a value that JSON has not"),
        ("# " + "x" * 100_000, "at most 100,000"),
    ],
)
def test_a_mistake_in_the_smoke_test_is_said_with_its_place(text: str, said: str, service: Service) -> None:
    (service.directory / "deploy" / "smoke.yaml").write_text(text)
    with pytest.raises(BadInput, match=said):
        read_smoke(service)


def test_a_seed_has_room_in_a_config_map_or_is_refused(service: Service) -> None:
    assert read_seed(service) is None
    seed = service.directory / "deploy" / "seed.sql"
    seed.write_text("SELECT 1;\n")
    assert read_seed(service) == "SELECT 1;\n"
    seed.write_text("-- " + "x" * 500_000)
    with pytest.raises(BadInput, match="at most 500,000"):
        read_seed(service)
    seed.write_bytes(b"\xff")
    with pytest.raises(BadInput, match="can't be read as text"):
        read_seed(service)
