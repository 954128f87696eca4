from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from kilo import cli

COMMANDS = importlib.metadata.entry_points(group="kilo.commands")
KILO = Path(sys.executable).parent / "kilo"


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of cli_commands in place of Kilo's own."""
    module = "tests.runtime.cli_commands"
    names = ["group", "check_failed", "bad_input", "unreachable", "interrupted", "defect", "lost_connection"]
    points = [
        EntryPoint(name.replace("_", "-"), f"{module}:{name}", "kilo.commands")
        for name in [*names, "needs_extra", "answer"]
    ]
    missing = EntryPoint("missing", "sandbox.not_there_either:up", "kilo.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [*points, missing])  # pyright: ignore[reportUnknownLambdaType]


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Every command below ``command`` that does something, by the words that call it."""
    if isinstance(command, TyperGroup):
        for name, each in command.commands.items():
            yield from leaves(each, (*path, name))
    else:
        yield " ".join(path), command


@pytest.mark.parametrize("point", COMMANDS, ids=lambda each: each.name)
def test_every_command_s_help_has_an_example(point: EntryPoint) -> None:
    loaded = point.load()
    if not isinstance(loaded, typer.Typer):
        loaded, function = typer.Typer(), loaded
        loaded.command(point.name)(function)
    without = [
        call
        for call, command in leaves(typer.main.get_command(loaded), ("kilo", point.name))
        if call not in f"{command.help}{command.epilog}"
    ]
    assert without == []


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from kilo import cli; code = cli.main(['--help']); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'sandbox', 'boto3', 'psycopg', 'pulumi', 'nats'})); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")
    for point in COMMANDS:
        assert f" {point.name} " in run.stdout


def test_every_command_has_its_line_of_help_and_every_line_its_command() -> None:
    assert {point.name for point in COMMANDS} == cli.HELP.keys()


@pytest.mark.parametrize("name", sorted(point.name for point in COMMANDS))
def test_command_loads_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"kilo {name}" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["--version", "-V", "version"])
def test_version(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([asked]) == 0
    assert capsys.readouterr().out == f"kilo {importlib.metadata.version('kilo')}\n"


@pytest.mark.usefixtures("misbehaving")
@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("check-failed", 1, "the registries differ"),
        ("bad-input", 2, "Pulumi.dev.yaml: tenants[0].tier: platinum is no tier"),
        ("unreachable", 3, "postgres.example:5432 refuses connections"),
    ],
)
def test_error_for_people_is_one_line_with_its_exit_code(
    name: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name]) == code
    assert capsys.readouterr() == ("", f"kilo: error: {message}\n")


@pytest.mark.usefixtures("misbehaving")
def test_error_is_an_object_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bad-input", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": "Pulumi.dev.yaml: tenants[0].tier: platinum is no tier",
        "exit_code": 2,
    }


@pytest.mark.usefixtures("misbehaving")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grup"], "No such command 'grup'. Did you mean 'group'? (see kilo --help)"),
        (["--nope"], "No such option: --nope (see kilo --help)"),
        (["answer"], "Missing argument 'code' (see kilo answer --help)"),
        (["answer", "1", "2"], "Got unexpected extra argument(s) (2) (see kilo answer --help)"),
        (["group", "other"], "No such command 'other' (see kilo group --help)"),
    ],
)
def test_wrong_use_is_one_line_and_says_where_help_is(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"kilo: error: {message}\n")


@pytest.mark.parametrize(
    ("asked", "same_as"),
    [
        ([], ["--help"]),
        (["-h"], ["--help"]),
        (["help"], ["--help"]),
        (["help", "outputs"], ["outputs", "--help"]),
        (["outputs", "-h"], ["outputs", "--help"]),
        (["help", "dlq", "replay"], ["dlq", "replay", "--help"]),
    ],
)
def test_help_is_found_by_every_usual_word(
    asked: list[str], same_as: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(same_as) == 0
    expected = capsys.readouterr().out
    assert cli.main(asked) == 0
    assert capsys.readouterr().out == expected
    assert "Usage: kilo" in expected


@pytest.mark.usefixtures("misbehaving")
def test_command_of_the_platform_says_that_the_sdk_lacks_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up"]) == 2
    said = capsys.readouterr().err
    assert "kilo up belongs to the platform" in said
    assert "in a checkout" in said


@pytest.mark.usefixtures("misbehaving")
def test_group_of_one_command_stays_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["group", "only"]) == 0
    assert capsys.readouterr().out == "only\n"


@pytest.mark.usefixtures("misbehaving")
def test_defect_is_no_answer_of_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["defect"]) == 70
    err = capsys.readouterr().err
    assert "RuntimeError: unforeseen" in err
    assert "a defect of kilo" in err


@pytest.mark.usefixtures("misbehaving")
def test_lost_connection_is_not_taken_for_a_closed_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lost-connection"]) == 70
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.usefixtures("misbehaving")
def test_interrupt_and_explicit_codes_pass_through() -> None:
    assert cli.main(["interrupted"]) == 130
    assert cli.main(["answer", "1"]) == 1


@pytest.mark.usefixtures("misbehaving")
def test_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["needs-extra"]) == 2
    assert capsys.readouterr().err == (
        "kilo: error: the Python package boto3.session is not installed: pip install 'kilo[fle]'\n"
    )


def test_missing_extra_of_a_command_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point = EntryPoint("toolchain", "tests.runtime.cli_needs_extra:command", "kilo.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [point])  # pyright: ignore[reportUnknownLambdaType]
    # The checkout's own commands come with no extra.
    assert cli.main(["toolchain"]) == 2
    assert "confluent_kafka is not installed: run make environment" in capsys.readouterr().err


def test_a_command_of_the_sdk_names_the_extra_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point = EntryPoint("promote", "kilo.promotion.cli:app", "kilo.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [point])  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.delitem(sys.modules, "kilo.promotion.cli", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert cli.main(["promote"]) == 2
    assert "rich.console is not installed: pip install 'kilo[platform]'" in capsys.readouterr().err


@pytest.mark.usefixtures("misbehaving")
def test_our_own_missing_module_is_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["missing"]) == 70
    assert "sandbox.not_there_either" in capsys.readouterr().err


def test_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen(
        [KILO, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"), [("kilo tool", "toolchain"), ("kilo toolchain --js", "--json")]
)
def test_shell_completion_knows_commands_and_their_options(words: str, expected: str) -> None:
    variables = {
        "_KILO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    run = subprocess.run([KILO], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert run.stdout.split() == [expected]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below a project whose dev stage is up."""
    (tmp_path / "Pulumi.yaml").touch()
    (tmp_path / ".kilo" / "bin").mkdir(parents=True)
    variables = {"KILO_OUTPUTS": "outputs.json", "DATABASE_URL": "postgresql://up"}
    (tmp_path / ".kilo" / "environment.json").write_text(json.dumps(variables))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin"})
    return tmp_path


def test_a_stage_that_is_up_is_found_with_its_engine(checkout: Path) -> None:
    cli.adopt_environment()
    assert os.environ["DATABASE_URL"] == "postgresql://up"
    assert os.environ["PATH"] == f"{checkout}/.kilo/bin:/usr/bin"


@pytest.mark.usefixtures("checkout")
def test_a_stage_that_the_shell_names_stays() -> None:
    os.environ["KILO_OUTPUTS"] = "/elsewhere.json"
    cli.adopt_environment()
    assert os.environ["KILO_OUTPUTS"] == "/elsewhere.json"
    assert os.environ["PATH"] == "/usr/bin"
    assert "DATABASE_URL" not in os.environ


def test_a_stage_that_is_down_changes_nothing(checkout: Path) -> None:
    (checkout / ".kilo" / "environment.json").unlink()
    cli.adopt_environment()
    assert os.environ["PATH"] == "/usr/bin"
    assert "KILO_OUTPUTS" not in os.environ
