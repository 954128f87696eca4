"""Making services: the same twice, well formatted, refused with the reason, and nothing half written."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kilo.errors import BadInput, Unreachable
from kilo.scaffold import template as scaffold
from kilo.scaffold.paved_road import score
from kilo.scaffold.template import check_name, create, load
from tests.patience import until
from tests.runtime.scaffold.variants import LONGEST, VARIANTS, make, template_repository

KILO = Path(sys.executable).parent / "kilo"
RUFF = Path(sys.executable).parent / "ruff"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template_repository(tmp_path_factory.mktemp("template") / "platform")


@pytest.fixture(scope="module")
def services(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("services")
    made = {variant: make(variant, template, directory) for variant in VARIANTS}
    return {**made, "longest": make("http-private", template, directory, LONGEST)}


def kilo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KILO, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()
    }


def test_each_is_formatted_and_without_findings_as_it_comes(services: dict[str, Path]) -> None:
    for service in services.values():
        for arguments in (("format", "--no-cache", "--diff"), ("check", "--no-cache")):
            done = subprocess.run(
                [RUFF, *arguments, "."], cwd=service, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout


def test_the_same_answers_make_the_same_bytes(
    services: dict[str, Path], template: Path, tmp_path: Path
) -> None:
    again = make("http", template, tmp_path)
    assert contents(again) == contents(services["http"])


def test_no_mark_of_the_template_is_left(services: dict[str, Path]) -> None:
    for service in services.values():
        for name, content in contents(service).items():
            assert b"[[" not in content or name == "pyproject.toml", name
            assert b"[%" not in content, name
            assert "[" not in name


def test_a_new_service_lacks_only_what_needs_a_registry(services: dict[str, Path]) -> None:
    for service in services.values():
        failed = {each.check for each in score(load(service)) if not each.passed}
        assert failed == {"base image is pinned", "dependencies are locked"}


@pytest.mark.parametrize("name", ["", "Orders", "-a", "a-", "a_b", "a" * 41, "ü", "../x", "a/b", "a\n"])
def test_what_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="NAME"):
        check_name(name)


@pytest.mark.parametrize("name", ["class", "json", "kilo", "test", "async", "psycopg", "starlette", "pytest"])
def test_a_name_that_would_hide_a_package_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="hide"):
        check_name(name)


@pytest.mark.parametrize("name", ["ingest", "gateway", "postgres", "ingest-checkout"])
def test_a_name_of_the_platforms_own_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="the platform has a workload of this name itself"):
        check_name(name)


def test_a_link_that_leads_nowhere_is_there_already(template: Path, tmp_path: Path) -> None:
    (tmp_path / "orders").symlink_to("nowhere")
    with pytest.raises(BadInput, match="is there already"):
        create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
    assert not (tmp_path / "orders").exists()


def test_a_place_that_takes_no_directory_is_said(template: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"can't be made \(File name too long\)"):
        create("orders", tmp_path / ("o" * 300), {}, str(template), None, ask=False)
    assert not list(tmp_path.iterdir())
    # /proc takes none, of root either.
    with pytest.raises(BadInput, match="/proc/orders: can't be made"):
        create("orders", Path("/proc/orders"), {}, str(template), None, ask=False)


def test_a_directory_that_is_there_stays_as_it_is(template: Path, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "mine").write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
    assert contents(tmp_path) == {"orders/mine": b"mine"}


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"kind": "job", "schedule": "whenever"}, "schedule"),
        ({"kind": "job", "schedule": '* * * * *"'}, "schedule"),
        ({"kind": "job", "schedule": "* * * * *\n"}, "schedule"),
        ({"description": 'a "quote"'}, "description"),
        ({"description": "a bell \a"}, "description"),
        ({"description": "turned \u202e around"}, "description"),
        ({"description": "two\u2028lines"}, "description"),
        ({"team": "shop\n"}, "team"),
        ({"team": "No Body"}, "team"),
        ({"kind": "ftp"}, "kind"),
    ],
)
def test_an_answer_that_will_not_do_leaves_nothing(
    answers: dict[str, str], named: str, template: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=named):
        create("orders", tmp_path / "orders", answers, str(template), None, ask=False)
    assert not list(tmp_path.iterdir())


def test_a_template_that_is_away_is_said(tmp_path: Path) -> None:
    with pytest.raises((BadInput, Unreachable), match="--template"):
        create("orders", tmp_path / "orders", {}, str(tmp_path / "none"), None, ask=False)
    with pytest.raises((BadInput, Unreachable), match="--template"):
        create("orders", tmp_path / "orders", {}, "https://127.0.0.1:9/none.git", None, ask=False)
    assert not list(tmp_path.iterdir())


def test_killed_in_the_middle_it_leaves_no_service(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scaffold.run_copy

    def dies(*arguments: object, **named: object) -> None:
        real(*arguments, **named)  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt

    monkeypatch.setattr(scaffold, "run_copy", dies)
    with pytest.raises(KeyboardInterrupt):
        create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
    assert not list(tmp_path.iterdir())


def is_free(file: Path) -> bool:
    """Whether nobody holds a lock."""
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_what_a_killed_run_left_goes_with_the_next(template: Path, tmp_path: Path) -> None:
    command = [str(KILO), "svc", "new", "orders", "--template", str(template), "--no-ask"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    until(lambda: list(tmp_path.iterdir()) or process.poll() is not None)
    assert process.poll() is None, "it was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".orders-")
    # A process that it was about to start ends a moment after it, and holds its files open until then.
    until(lambda: is_free(left / ".lock"))
    create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
    assert [each.name for each in tmp_path.iterdir()] == ["orders"]


def test_a_run_killed_before_it_took_its_lock_leaves_nothing_either(template: Path, tmp_path: Path) -> None:
    """It was seen: the directory is made a moment before the lock in it."""
    (tmp_path / ".orders-0p1v6m0x.unfinished").mkdir()
    (tmp_path / ".orders-mine").mkdir()
    create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".orders-mine", "orders"]


def test_a_place_that_another_run_clears_up_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found the directory before this run had its lock."""
    made: list[Path] = []

    def mkdtemp(**where: str) -> str:
        made.append(Path(tempfile.mkdtemp(**where)))
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    monkeypatch.setattr(scaffold, "tempfile", SimpleNamespace(mkdtemp=mkdtemp))
    with scaffold.workplace(tmp_path, "orders") as work:
        assert work == made[1]
        assert work.is_dir()
    assert not list(tmp_path.iterdir())


def test_the_place_of_a_run_that_goes_on_is_left_alone(template: Path, tmp_path: Path) -> None:
    with scaffold.workplace(tmp_path, "orders") as work:
        (work / "mine").touch()
        create("orders", tmp_path / "orders", {}, str(template), None, ask=False)
        assert (work / "mine").exists()


def test_a_template_that_is_not_committed_makes_no_service(tmp_path: Path) -> None:
    """Its version would be one that nobody finds again; the rest of the checkout may be changed."""
    repository = template_repository(tmp_path / "platform")
    (repository / "Pulumi.dev.yaml").write_text("changed: true")
    service = create("orders", tmp_path / "orders", {}, str(repository), None, ask=False)
    assert service.version == "v0.1.0"
    (repository / "templates" / "service" / "MORE.md").write_text("more")
    with pytest.raises(BadInput, match=r"templates/service/MORE\.md: not committed; .* --ref"):
        create("bills", tmp_path / "bills", {}, str(repository), None, ask=False)
    assert create("bills", tmp_path / "bills", {}, str(repository), "v0.1.0", ask=False).version == "v0.1.0"


class TestCommands:
    def test_new_check_and_list(
        self, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        made = kilo("svc", "new", "orders", "--template", str(template), "--dry-run", "--json")
        assert json.loads(made.stdout)["dry_run"] is True
        assert not os.listdir(tmp_path)
        made = kilo("svc", "new", "orders", "--template", str(template), "--json")
        assert made.returncode == 0, made.stderr
        assert "src/orders/app.py" in json.loads(made.stdout)["files"]
        checked = kilo("svc", "check", "orders", "--metrics", "adoption.prom")
        assert checked.returncode == 1
        assert "make pin" in checked.stdout
        assert (
            'service_paved_road_ratio{service="orders",kind="http",template="v0.1.0"} 0.'
            in (tmp_path / "adoption.prom").read_text()
        )
        assert json.loads(kilo("svc", "list", "--json").stdout)[0]["name"] == "orders"

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--kind", "consumer", "--no-database"], "inbox"),
            (["--no-database", "--outbox"], "transaction"),
            (["--kind", "job", "--encrypted"], "http alone"),
            (["--schedule", "0 0 * * *"], "only a job"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(
        self, arguments: list[str], reason: str, template: Path, tmp_path: Path
    ) -> None:
        into = str(tmp_path / "orders")
        done = kilo("svc", "new", "orders", "--template", str(template), "--into", into, *arguments)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
        assert not list(tmp_path.iterdir())
